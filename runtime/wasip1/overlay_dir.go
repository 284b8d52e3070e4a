package wasip1

import (
	"maps"
	"slices"
	"sort"
)

// directory is what an inode has as a directory. A frozen one has all its names;
// another one those that differ from what lies under it, nil for a whiteout.
type directory struct {
	parent *inode // as it was given: ask for the current one; nil for a root
	names  map[string]*inode
	under  *directory // frozen, of which the rest shows through; nil: nothing does
	slots  int        // names that are paid for beside their letters: what the map had at most

	// sorted has the names in order once somebody has listed them. It may have
	// names that are gone; fresh are those that came since.
	listed bool
	sorted []string
	fresh  []string
	stale  int64 // bytes of names that are gone, but for sorted and fresh; still paid for
}

// child finds what a directory has under a name; nil: nothing. The lock is held.
func (o *Overlay) child(d *inode, name string) *inode {
	n, ok := d.dir.names[name]
	if !ok && d.dir.under != nil {
		n = d.dir.under.names[name]
	}
	if n == nil {
		return nil
	}
	return o.current(n)
}

// lookUp finds a name of a directory; "." is itself.
func (o *Overlay) lookUp(d *inode, name string) (*inode, Errno) {
	d = o.current(d)
	if name == "." || name == "" {
		return d, 0
	}
	if len(name) > maxName {
		return nil, ErrnoNAMETOOLONG
	}
	if n := o.child(d, name); n != nil {
		return n, 0
	}
	return nil, ErrnoNOENT
}

// enter puts a name into a directory that is not frozen, which need not have it:
// nil takes it away.
func (o *Overlay) enter(d *inode, name string, n *inode) Errno {
	dir := d.dir
	old, had := dir.names[name]
	hidden := dir.under != nil && dir.under.names[name] != nil
	switch {
	case n == nil && !hidden:
		if had {
			o.leave(dir, name)
		}
		return 0
	case !had:
		bytes := int64(len(name))
		grows := len(dir.names) == dir.slots
		if grows {
			bytes += nameBytes
		}
		if dir.names == nil {
			bytes += namesBytes
		}
		if errno := o.pay(bytes); errno != 0 {
			return errno
		}
		if grows {
			dir.slots++
		}
		if dir.names == nil {
			dir.names = map[string]*inode{}
		}
	}
	dir.names[name] = n
	if dir.listed && n != nil && (!had || old == nil) {
		dir.fresh = append(dir.fresh, name)
		_ = o.pay(-dir.unlist())
	}
	return 0
}

// leave takes a name out. A map keeps the room that it ever had, so that one that
// has become much too large is made anew.
func (o *Overlay) leave(dir *directory, name string) {
	delete(dir.names, name)
	back := int64(len(name))
	if dir.listed { // there it stays
		dir.stale += back
		back = 0
	}
	switch n := len(dir.names); {
	case n == 0:
		back += int64(dir.slots)*nameBytes + namesBytes
		dir.names, dir.slots = nil, 0
	case dir.slots > 32 && n <= dir.slots/4:
		names := make(map[string]*inode, n)
		maps.Copy(names, dir.names)
		back += int64(dir.slots-n) * nameBytes
		dir.names, dir.slots = names, n
	}
	_ = o.pay(-back - dir.unlist())
}

// unlist forgets the order of the names if too many of them are gone, and returns
// how many bytes these had.
func (dir *directory) unlist() (stale int64) {
	if len(dir.fresh)+len(dir.sorted) <= 2*len(dir.names)+64 && len(dir.names) > 0 {
		return 0
	}
	stale = dir.stale
	dir.listed, dir.fresh, dir.sorted, dir.stale = false, nil, nil, 0
	return stale
}

// forgetNames is the end of a directory without entries, which may have
// whiteouts.
func (o *Overlay) forgetNames(dir *directory) {
	back := dir.stale + int64(dir.slots)*nameBytes
	for name := range dir.names {
		back += int64(len(name))
	}
	if dir.names != nil {
		back += namesBytes
	}
	*dir = directory{parent: dir.parent}
	_ = o.pay(-back)
}

// next finds the first name of a directory after another one, in the order of
// bytes: whatever comes and goes meanwhile, a listing has each name once, and
// every one that was there all the time.
func (o *Overlay) next(d *inode, after string) (name string, n *inode, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d = o.current(d); d.nlink == 0 {
		return "", nil, false
	}
	dir := d.dir
	if !d.frozen {
		dir.sort()
	}
	upper := firstAfter(dir.sorted, after, func(s string) bool { return dir.names[s] != nil })
	if dir.under != nil {
		lower := firstAfter(dir.under.sorted, after, func(s string) bool { _, over := dir.names[s]; return !over })
		if lower != "" && (upper == "" || lower < upper) {
			return lower, o.current(dir.under.names[lower]), true
		}
	}
	if upper == "" {
		return "", nil, false
	}
	return upper, o.current(dir.names[upper]), true
}

func (dir *directory) sort() {
	switch {
	case !dir.listed:
		dir.sorted = make([]string, 0, len(dir.names))
		for name, n := range dir.names {
			if n != nil {
				dir.sorted = append(dir.sorted, name)
			}
		}
	case len(dir.fresh) > 0:
		dir.sorted = append(dir.sorted, dir.fresh...)
	default:
		return
	}
	// What was in order already costs little.
	slices.Sort(dir.sorted)
	dir.listed, dir.fresh = true, nil
}

func firstAfter(sorted []string, after string, there func(string) bool) string {
	i := sort.Search(len(sorted), func(i int) bool { return sorted[i] > after })
	for ; i < len(sorted); i++ {
		if there(sorted[i]) {
			return sorted[i]
		}
	}
	return ""
}

// empty reports whether a directory has no entries.
func (o *Overlay) empty(d *inode) bool {
	for _, n := range d.dir.names {
		if n != nil {
			return false
		}
	}
	if d.frozen || d.dir.under == nil {
		return true
	}
	// Every name here is a whiteout of one of those under it.
	return len(d.dir.names) == len(d.dir.under.names)
}
