package wasip1

import (
	"slices"
	"sort"
)

// directory is what an inode has as a directory. A frozen one has all its names;
// another one those that differ from what lies under it, nil for a whiteout.
type directory struct {
	parent *inode // as it was given: ask for the current one; nil for a root
	names  map[string]*inode
	under  *directory // frozen, of which the rest shows through; nil: nothing does

	// sorted has the names in order once somebody has listed them. It may have
	// names that are gone; fresh are those that came since.
	listed bool
	sorted []string
	fresh  []string
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
			delete(dir.names, name)
			_ = o.pay(-nameBytes - int64(len(name)))
		}
		return 0
	case !had:
		if errno := o.pay(nameBytes + int64(len(name))); errno != 0 {
			return errno
		}
		if dir.names == nil {
			dir.names = map[string]*inode{}
		}
	}
	dir.names[name] = n
	if dir.listed && n != nil && (!had || old == nil) {
		dir.fresh = append(dir.fresh, name)
		if len(dir.fresh)+len(dir.sorted) > 2*len(dir.names)+64 {
			dir.listed, dir.fresh, dir.sorted = false, nil, nil
		}
	}
	return 0
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
	visible := 0
	for _, n := range d.dir.names {
		if n != nil {
			visible++
		}
	}
	if visible > 0 {
		return false
	}
	if d.frozen || d.dir.under == nil {
		return true
	}
	// Every name here is a whiteout of one of those under it.
	return len(d.dir.names) == len(d.dir.under.names)
}
