package wasip1

// descriptor is an entry of the table: an open file with what preview 1 keeps
// per descriptor.
type descriptor struct {
	file       file // nil: free
	rights     uint64
	inheriting uint64
	flags      uint16
	host       bool      // holds a descriptor of the host
	preopen    string    // guest path of a preopened directory
	charged    bool      // to the table's payer
	others     *int      // descriptors of the same file besides this one; nil: it was never duplicated
	interests  *interest // in it, one for each poll set that has it
}

// table is the one table of file descriptors of a Process. Everything that a
// guest opens is in it, whatever its kind.
type table struct {
	entries []descriptor
	open    int
	host    int // of open: those that hold a descriptor of the host
	max     int
	free    int // no lower number is free

	payer *Process // of new descriptors; nil: nobody
}

// room says whether one more descriptor may be opened.
func (t *table) room(host bool) Errno {
	switch {
	case t.open >= t.max:
		return ErrnoMFILE
	case host && t.host >= ownFiles && hostFiles.used.Load() >= hostFiles.max():
		return ErrnoNFILE
	}
	return 0
}

// usesHost reports whether a file takes one of the descriptors that the host
// lets this process open.
func usesHost(f file) bool {
	switch f := f.(type) {
	case *hostFile, *overlayFile:
		return true
	case *openDir:
		return f.at.fd >= 0
	}
	return false
}

// insert gives d the lowest free number, as POSIX asks.
func (t *table) insert(d descriptor) (uint32, Errno) {
	d.host = usesHost(d.file)
	if errno := t.room(d.host); errno != 0 {
		return 0, errno
	}
	if d.charged = t.payer != nil; d.charged && !t.payer.hold(descriptorBytes) {
		return 0, ErrnoNOMEM
	}
	if d.host {
		if t.host >= ownFiles && !hostFiles.take() {
			if d.charged {
				t.payer.drop(descriptorBytes)
			}
			return 0, ErrnoNFILE
		}
		t.host++
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

// dup gives the file of fd a second descriptor.
func (t *table) dup(fd uint32) (uint32, Errno) {
	d, errno := t.get(fd)
	if errno != 0 {
		return 0, errno
	}
	if d.others == nil {
		d.others = new(int)
	}
	others, second := d.others, *d
	second.preopen, second.interests = "", nil
	to, errno := t.insert(second)
	if errno == 0 {
		*others++
	}
	return to, errno
}

func (t *table) close(fd uint32) Errno {
	d, errno := t.get(fd)
	if errno != 0 {
		return errno
	}
	last := *d
	t.clear(fd)
	return last.release()
}

// release closes the file of a descriptor that has left the table, unless there
// are others.
func (d *descriptor) release() Errno {
	if d.others != nil && *d.others > 0 {
		*d.others--
		return 0
	}
	return d.file.close()
}

// clear makes an entry free.
func (t *table) clear(fd uint32) {
	if t.entries[fd].host {
		if t.host--; t.host >= ownFiles {
			hostFiles.used.Add(-1)
		}
	}
	if t.entries[fd].charged {
		t.payer.drop(descriptorBytes)
	}
	t.entries[fd].forget()
	t.entries[fd] = descriptor{}
	t.free = min(t.free, int(fd))
	t.open--
}

// renumber moves from over to, which must be open as well: a guest cannot
// choose numbers that the table would have to grow for.
func (t *table) renumber(from, to uint32) Errno {
	if _, errno := t.get(from); errno != 0 {
		return errno
	}
	if _, errno := t.get(to); errno != 0 || from == to {
		return errno
	}
	old := t.entries[to]
	t.entries[from].forget() // they are in the number
	moved := t.entries[from]
	t.clear(to)
	t.entries[from] = descriptor{} // moved: what it counts for goes along
	t.free = min(t.free, int(from))
	t.entries[to] = moved
	old.release() // as dup2: the new meaning holds whatever becomes of the old
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
