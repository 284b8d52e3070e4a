package wasip1

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Bits of an interest, and of the events that come of it.
const (
	pollRead   uint32 = 1
	pollWrite  uint32 = 2
	pollHangup uint32 = 4 // events only
)

// Bounds of what a guest can have the host keep. Together with the number of
// descriptors, which no set of interests exceeds.
const (
	maxPollSets = 64
	maxStreams  = 64 // of one set: those other than sockets, which are looked at in turn
)

// pollSet is a set of descriptors to wait for, whose cost does not depend on how
// many do nothing: a socket that changes puts itself on a list. An event of a
// direction comes once, and again only after a call in that direction would
// have blocked. Its functions are called on the guest's goroutine.
type pollSet struct {
	noFile
	p     *Process
	all   []*interest
	woken atomic.Pointer[interest] // sockets that may have an event, the latest first
	queue []*interest              // those taken from woken, in order
	gone  int                      // of woken and queue: those that have left the set
	// What is looked at each time, in turn: few have any.
	streams []*interest

	asleep polling // of the wait under way: when it began and when it ends
}

// interest is a descriptor's place in a set.
type interest struct {
	set      *pollSet
	sock     *socket // nil for others
	file     file
	fd       uint32
	mask     uint32 // pollRead, pollWrite
	userdata uint64
	at       int       // in set.all
	other    *interest // of the same descriptor, in another set

	armed  atomic.Uint32 // directions whose event is yet to come
	queued atomic.Bool   // in woken or queue
	left   bool          // it is in the set no more
	next   *interest     // in woken
}

func (s *pollSet) filetype() uint8 { return filetypeUnknown }

func (s *pollSet) stat() (filestat, Errno) {
	return streamStat(filetypeUnknown, 0, s.p.ns.created), 0
}

func (s *pollSet) close() Errno {
	for len(s.all) > 0 {
		s.p.fds.disinterest(s.all[len(s.all)-1])
	}
	s.p.pollSets--
	s.p.drop(pollSetBytes)
	return 0
}

// pollable says whether a file can be waited for; others are always ready.
func pollable(f file) bool {
	switch f := f.(type) {
	case *socket, *signalFile, *input, *output:
		return true
	case *hostFile:
		return f.f != nil
	}
	return false
}

// control adds a descriptor, changes its interest, or takes it out if that is 0.
func (s *pollSet) control(fd, mask uint32, userdata uint64) Errno {
	d, errno := s.p.fds.get(fd)
	if errno != 0 {
		return errno
	}
	i := d.interests
	for i != nil && i.set != s {
		i = i.other
	}
	switch {
	case mask&^(pollRead|pollWrite) != 0:
		return ErrnoINVAL
	case mask == 0 && i == nil:
		return ErrnoNOENT
	case mask == 0:
		s.p.fds.disinterest(i)
		return 0
	case !pollable(d.file):
		return ErrnoPERM
	}
	if i == nil {
		sock, _ := d.file.(*socket)
		if s.p.interests >= s.p.fds.max || sock == nil && len(s.streams) >= maxStreams {
			return ErrnoNOSPC
		}
		if !s.p.hold(interestBytes) {
			return ErrnoNOMEM
		}
		i = &interest{set: s, sock: sock, file: d.file, fd: fd, at: len(s.all), other: d.interests}
		d.interests = i
		s.p.interests++
		s.all = append(s.all, i)
		if sock != nil {
			sock.addInterest(i)
		} else {
			s.streams = append(s.streams, i)
		}
	}
	i.mask, i.userdata = mask, userdata
	i.armed.Store(mask)
	if i.sock != nil {
		i.enqueue()
	}
	return 0
}

// leave ends an interest, but for the list of its descriptor.
func (i *interest) leave() {
	s := i.set
	last := s.all[len(s.all)-1]
	s.all[i.at], last.at = last, i.at
	s.all[len(s.all)-1] = nil
	s.all = s.all[:len(s.all)-1]
	s.p.interests--
	s.p.drop(interestBytes)
	i.left = true
	i.armed.Store(0)
	if i.sock == nil {
		s.streams = slices.DeleteFunc(s.streams, func(o *interest) bool { return o == i })
		return
	}
	i.sock.dropInterest(i)
	if i.queued.Load() {
		// It cannot be taken out of woken; but a guest must not collect these.
		if s.gone++; s.gone > 64+len(s.all) {
			s.take()
			s.queue = slices.DeleteFunc(s.queue, func(o *interest) bool { return o.left })
			s.gone = 0
		}
	}
}

// enqueue has the next wait look at the interest, and reports whether it was not
// about to. It is called from any goroutine, and takes no locks.
func (i *interest) enqueue() bool {
	if !i.queued.CompareAndSwap(false, true) {
		return false
	}
	for {
		head := i.set.woken.Load()
		i.next = head
		if i.set.woken.CompareAndSwap(head, i) {
			return true
		}
	}
}

// take moves what is in woken to the end of queue.
func (s *pollSet) take() {
	from := len(s.queue)
	for i := s.woken.Swap(nil); i != nil; {
		next := i.next
		i.next = nil
		s.queue = append(s.queue, i)
		i = next
	}
	slices.Reverse(s.queue[from:])
}

// ready consumes and returns the events of an interest.
func (i *interest) ready() (events uint32) {
	var hangup bool
	if i.sock != nil {
		var readable, writable bool
		if readable, writable, _, hangup = i.sock.s.Ready(); readable {
			events |= pollRead
		}
		if writable {
			events |= pollWrite
		}
	} else {
		for _, way := range [...]uint32{pollRead, pollWrite} {
			if i.armed.Load()&way == 0 {
				continue
			}
			ready, _, gone := i.file.poll(way == pollWrite)
			if ready {
				events |= way
				hangup = hangup || gone
			}
		}
	}
	if events &= i.armed.Load(); events == 0 {
		return 0
	}
	i.armed.And(^events)
	if hangup {
		events |= pollHangup
	}
	return events
}

// collect gives the events there are to put, as many as fit.
func (s *pollSet) collect(room int, put func(n int, i *interest, events uint32)) (n int) {
	s.take()
	done := 0
	for ; done < len(s.queue) && n < room; done++ {
		i := s.queue[done]
		if i.left {
			s.gone--
			continue
		}
		i.queued.Store(false) // before the look
		if events := i.ready(); events != 0 {
			put(n, i, events)
			n++
		}
	}
	s.queue = slices.Delete(s.queue, 0, done)
	for _, i := range s.streams {
		if n == room {
			break
		}
		if events := i.ready(); events != 0 {
			put(n, i, events)
			n++
		}
	}
	return n
}

// wait returns at least one event, or none after the timeout; one below 0 is for
// ever. It is EINTR when a signal comes first.
func (s *pollSet) wait(ctx context.Context, timeout int64, room int, put func(n int, i *interest, events uint32)) (n int, errno Errno) {
	if ctx.Err() != nil {
		panic(killed)
	}
	p := s.p
	again := p.away.polling // it was put aside in this call
	if again {
		s.asleep.began = p.away.returned(p)
	}
	if n = s.collect(room, put); n > 0 || timeout == 0 {
		return n, 0
	}
	if !again {
		s.asleep.began, _ = p.now(clockMonotonic)
	}
	s.asleep.next = never
	if timeout > 0 && timeout < foreverTimeout {
		s.asleep.next = s.asleep.began + timeout
	}
	if len(s.streams) > 0 {
		for _, i := range s.streams {
			for _, way := range [...]uint32{pollRead, pollWrite} {
				if i.armed.Load()&way != 0 {
					i.file.watch(p.wake, way == pollWrite)
				}
			}
		}
		defer func() {
			for _, i := range s.streams {
				i.file.unwatch(p.wake)
			}
		}()
	}
	p.inSet.Store(true)
	defer p.inSet.Store(false)
	for {
		p.wake.arm()
		if n = s.collect(room, put); n > 0 {
			p.wake.disarm()
			return n, 0
		}
		left := time.Duration(never)
		if s.asleep.next != never {
			now, _ := p.now(clockMonotonic)
			if left = time.Duration(s.asleep.next - now); left <= 0 {
				p.wake.disarm()
				return 0, 0
			}
		}
		if errno = s.sleep(ctx, left); errno != 0 {
			return 0, errno
		}
	}
}

// sleep returns when woken or after d, and with EINTR for a signal. The waker is
// armed before.
func (s *pollSet) sleep(ctx context.Context, d time.Duration) Errno {
	p := s.p
	if guest, ok := ctx.(parking); ok && len(s.streams) == 0 && d >= longSleep {
		return p.away.sleep(ctx, p, guest, &s.asleep, d)
	}
	began := time.Now()
	defer func() { p.blocked += time.Since(began) }()
	if s.asleep.next != never {
		defer p.wakeAfter(d).Stop()
	}
	return p.wake.wait(ctx, nil)
}

// wakeAfter wakes the process once, unless the timer is stopped before: so that
// who sleeps has nothing else to wait for than being woken.
func (p *Process) wakeAfter(d time.Duration) *time.Timer {
	if p.wakeTimer == nil {
		p.wakeTimer = time.AfterFunc(d, p.wake.Wake)
	} else {
		p.wakeTimer.Reset(d)
	}
	return p.wakeTimer
}

// addInterest has the socket's changes noted for an interest. The list is never
// changed once others can see it.
func (s *socket) addInterest(i *interest) {
	if !s.watched {
		s.watched = true
		s.s.Watch(s)
	}
	var list []*interest
	if old := s.interests.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, i)
	s.interests.Store(&list)
}

func (s *socket) dropInterest(i *interest) {
	old := *s.interests.Load()
	if len(old) == 1 {
		s.interests.Store(nil)
		return
	}
	list := slices.DeleteFunc(slices.Clone(old), func(o *interest) bool { return o == i })
	s.interests.Store(&list)
}

// noteChange tells the sets that the socket is in, and reports whether whoever
// waits is to be woken: not if it waits for a set that knows already, or wants
// to hear nothing of this socket.
func (s *socket) noteChange() bool {
	news := false
	if list := s.interests.Load(); list != nil {
		for _, i := range *list {
			if i.armed.Load() != 0 && i.enqueue() {
				news = true
			}
		}
	}
	return news || !s.p.inSet.Load()
}

// blocked notes that a call would have blocked: from now on the end of that is an
// event.
func (s *socket) blocked(way uint32) {
	list := s.interests.Load()
	if list == nil {
		return
	}
	armed := false
	for _, i := range *list {
		if i.mask&way != 0 && i.armed.Or(way)&way == 0 {
			armed = true
		}
	}
	if !armed {
		return
	}
	// What happened before was no news to anybody.
	if readable, writable, _, _ := s.s.Ready(); readable && way == pollRead || writable && way == pollWrite {
		for _, i := range *list {
			i.enqueue()
		}
	}
}

// blocked notes that a call would have blocked, for other files than sockets.
func (d *descriptor) blocked(way uint32) {
	if d.interests == nil {
		return
	}
	for i := d.interests; i != nil; i = i.other {
		if i.sock == nil {
			i.armed.Or(i.mask & way)
		}
	}
}

// disinterest ends an interest.
func (t *table) disinterest(i *interest) {
	at := &t.entries[i.fd].interests
	for *at != i {
		at = &(*at).other
	}
	*at = i.other
	i.leave()
}

// forget ends the interests in a descriptor that is about to go.
func (d *descriptor) forget() {
	for i := d.interests; i != nil; i = i.other {
		i.leave()
	}
	d.interests = nil
}
