package wasip1

// descriptor is an entry of the table: an open file with what preview 1 keeps
// per descriptor. There is no dup in preview 1.
type descriptor struct {
	file       file // nil: free
	rights     uint64
	inheriting uint64
	flags      uint16
	preopen    string // guest path of a preopened directory
}

// table is the one table of file descriptors of a Process. Everything that a
// guest opens is in it, whatever its kind.
type table struct {
	entries []descriptor
	open    int
	max     int
	free    int // no lower number is free
}

// room says whether one more descriptor may be opened.
func (t *table) room() Errno {
	switch {
	case t.open >= t.max:
		return ErrnoMFILE
	case t.open >= ownFiles && hostFiles.used.Load() >= hostFiles.max():
		return ErrnoNFILE
	}
	return 0
}

// insert gives d the lowest free number, as POSIX asks.
func (t *table) insert(d descriptor) (uint32, Errno) {
	if errno := t.room(); errno != 0 {
		return 0, errno
	}
	if t.open >= ownFiles && !hostFiles.take() {
		return 0, ErrnoNFILE
	}
	i := t.free
	for i < len(t.entries) && t.entries[i].file != nil {
		i++
	}
	if i == len(t.entries) {
		t.entries = append(t.entries, d)
	} else {
		t.entries[i] = d
	}
	t.free = i + 1
	t.open++
	return uint32(i), 0
}

// get returns an open descriptor, valid until the table changes.
func (t *table) get(fd uint32) (*descriptor, Errno) {
	if uint64(fd) >= uint64(len(t.entries)) || t.entries[fd].file == nil {
		return nil, ErrnoBADF
	}
	return &t.entries[fd], 0
}

func (t *table) close(fd uint32) Errno {
	d, errno := t.get(fd)
	if errno != 0 {
		return errno
	}
	f := d.file
	t.clear(fd)
	return f.close()
}

// clear makes an entry free.
func (t *table) clear(fd uint32) {
	t.entries[fd] = descriptor{}
	t.free = min(t.free, int(fd))
	if t.open--; t.open >= ownFiles {
		hostFiles.used.Add(-1)
	}
}

// renumber moves from over to, which must be open as well: a guest cannot
// choose numbers that the table would have to grow for.
func (t *table) renumber(from, to uint32) Errno {
	src, errno := t.get(from)
	if errno != 0 {
		return errno
	}
	dst, errno := t.get(to)
	if errno != 0 {
		return errno
	}
	if from == to {
		return 0
	}
	old := dst.file
	*dst = *src
	t.clear(from)
	old.close() // as dup2: the new meaning holds whatever becomes of the old
	return 0
}

func (t *table) closeAll() {
	for fd := range t.entries {
		if t.entries[fd].file != nil {
			t.close(uint32(fd))
		}
	}
	t.max = 0
}
