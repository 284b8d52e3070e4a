package schedule

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const slice = 5 * time.Millisecond

// simulate runs tasks that never sleep on so many processors for a time and
// returns what each has run. length gives the length of each slice.
func simulate(tasks []*Task, processors int, total time.Duration, length func() time.Duration) map[*Task]time.Duration {
	var q Queue
	type running struct {
		task       *Task
		began, end time.Duration
	}
	var busy []running
	ran := map[*Task]time.Duration{}
	for _, t := range tasks {
		q.Push(t, 0)
	}
	var now time.Duration
	for now < total {
		for len(busy) < processors && q.Len() > 0 {
			busy = append(busy, running{q.Pop(), now, now + length()})
		}
		first := slices.MinFunc(busy, func(a, b running) int { return int(a.end - b.end) })
		busy = slices.DeleteFunc(busy, func(r running) bool { return r == first })
		now = first.end
		ran[first.task] += first.end - first.began
		first.task.Charge(first.end - first.began)
		q.Push(first.task, 100*time.Millisecond)
	}
	return ran
}

func fixed() time.Duration { return slice }

func TestShares(t *testing.T) {
	for _, c := range []struct {
		name       string
		shares     []int64
		processors int
		want       []float64 // of one processor
	}{
		{"RES-04 equal", []int64{1024, 1024}, 1, []float64{0.5, 0.5}},
		{"RES-04 100m and 300m", []int64{102, 307}, 1, []float64{102. / 409, 307. / 409}},
		{"RES-04 the least and one core", []int64{2, 1024}, 1, []float64{2. / 1026, 1024. / 1026}},
		{"default", []int64{0, 1024}, 1, []float64{0.5, 0.5}},
		{"out of range", []int64{-5, 2}, 1, []float64{0.5, 0.5}},
		{"two processors", []int64{3072, 1024, 1024, 1024}, 2, []float64{1, 1. / 3, 1. / 3, 1. / 3}},
		{"more than a task can use", []int64{100_000, 1024, 1024}, 2, []float64{1, 0.5, 0.5}},
		{"all have one", []int64{2, 1024}, 2, []float64{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tasks []*Task
			for _, s := range c.shares {
				tasks = append(tasks, NewTask(s, nil))
			}
			const total = 60 * time.Second
			ran := simulate(tasks, c.processors, total, fixed)
			for i, task := range tasks {
				if got := float64(ran[task]) / float64(total); math.Abs(got-c.want[i]) > 0.01 {
					t.Errorf("task %d ran %.3f, want %.3f", i, got, c.want[i])
				}
			}
		})
	}
}

// With slices of any length, whoever never sleeps gets its share, and is never
// further from it than a few slices.
func TestSharesWithRandomSlices(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var tasks []*Task
		sum := int64(0)
		for range 2 + r.IntN(8) {
			shares := 100 + r.Int64N(2000)
			sum += shares
			tasks = append(tasks, NewTask(shares, nil))
		}
		total := 30 * time.Second
		ran := simulate(tasks, 1, total, func() time.Duration { return time.Duration(1 + r.Int64N(int64(2*slice))) })
		for _, task := range tasks {
			want := time.Duration(float64(total) * float64(task.shares) / float64(sum))
			if d := (ran[task] - want).Abs(); d > 20*slice {
				t.Errorf("seed %d: task of %d/%d shares ran %v, want %v", seed, task.shares, sum, ran[task], want)
			}
		}
	}
}

func TestSleepers(t *testing.T) {
	var q Queue
	busy, sleeper, other := NewTask(1024, nil), NewTask(1024, nil), NewTask(1024, nil)
	q.Push(busy, 0)
	q.Push(other, 0)
	q.Push(sleeper, 0)
	q.Remove(sleeper) // and sleeps from now on
	for range 1000 {
		task := q.Pop()
		task.Charge(slice)
		q.Push(task, slice)
	}
	q.Push(sleeper, slice)
	if q.Next() != sleeper {
		t.Fatal("who wakes up does not go first")
	}
	// It gets its credit and its share, not the 2.5 s that the others had.
	ran := 0
	for range 100 {
		task := q.Pop()
		if task == sleeper {
			ran++
		}
		task.Charge(slice)
		q.Push(task, slice)
	}
	if ran < 33 || ran > 36 {
		t.Errorf("the sleeper ran %d of 100 slices, want a third", ran)
	}
}

// A task that was entitled to more than it could use has not saved it up.
func TestNoSavings(t *testing.T) {
	heavy, light := NewTask(10240, nil), NewTask(102, nil)
	simulate([]*Task{heavy, light}, 2, time.Minute, fixed)
	late := NewTask(10240, nil)
	var q Queue
	q.virtual = max(heavy.virtual, light.virtual)
	for _, task := range []*Task{heavy, light, late} {
		task.index = 0
		q.Push(task, 100*time.Millisecond)
	}
	ran := map[*Task]int{}
	for range 400 {
		task := q.Pop()
		ran[task]++
		task.Charge(slice)
		q.Push(task, 100*time.Millisecond)
	}
	if d := ran[heavy] - ran[late]; d < -45 || d > 45 {
		t.Errorf("of 400 slices the old one ran %d, the new one %d", ran[heavy], ran[late])
	}
}

func TestQueue(t *testing.T) {
	var q Queue
	if q.Pop() != nil || q.Next() != nil || q.Len() != 0 {
		t.Error("an empty queue has a task")
	}
	a, b, c := NewTask(0, "a"), NewTask(0, "b"), NewTask(0, "c")
	if q.Remove(a) {
		t.Error("removed what does not wait")
	}
	q.Push(a, 0)
	q.Push(b, 0)
	q.Push(c, 0)
	q.Push(b, 0) // waits already
	if q.Len() != 3 || !q.Remove(b) || q.Remove(b) {
		t.Error("a task waits other than once")
	}
	if q.Pop() != a || q.Pop() != c || q.Pop() != nil {
		t.Error("equals do not go first come, first served")
	}
}

// Virtual time wraps after 208 days of running with the least shares.
func TestWrap(t *testing.T) {
	a, b := NewTask(1024, nil), NewTask(1024, nil)
	q := Queue{virtual: math.MaxInt64 - int64(3*slice)}
	ran := map[*Task]int{}
	q.Push(a, 0)
	q.Push(b, 0)
	for range 100 {
		task := q.Pop()
		ran[task]++
		task.Charge(slice)
		q.Push(task, slice)
	}
	if ran[a] != 50 || ran[b] != 50 {
		t.Errorf("ran %d and %d times", ran[a], ran[b])
	}
	if !NewTask(0, nil).Before(&Task{virtual: 1}) {
		t.Error("before is not before")
	}
}

// Random use against the definition: Pop gives the least, and nothing is lost.
func TestQueueProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		var q Queue
		waiting := map[*Task]bool{}
		var idle []*Task
		for range 20 {
			idle = append(idle, NewTask(r.Int64N(3000), nil))
		}
		for range 500 {
			switch n := r.IntN(4); {
			case n < 2 && len(idle) > 0:
				i := r.IntN(len(idle))
				t := idle[i]
				idle = slices.Delete(idle, i, i+1)
				t.Charge(time.Duration(r.Int64N(1e9)))
				q.Push(t, slice)
				waiting[t] = true
			case n == 2:
				if popped := q.Pop(); popped != nil {
					for other := range waiting {
						if other.Before(popped) {
							t.Fatalf("seed %d: popped one that is ahead of another", seed)
						}
					}
					delete(waiting, popped)
					idle = append(idle, popped)
				}
			default:
				for task := range waiting {
					if !q.Remove(task) {
						t.Fatalf("seed %d: lost a task", seed)
					}
					delete(waiting, task)
					idle = append(idle, task)
					break
				}
			}
			if q.Len() != len(waiting) {
				t.Fatalf("seed %d: %d tasks wait, want %d", seed, q.Len(), len(waiting))
			}
		}
	}
}

// Of two that become runnable while others are busy, one that has slept goes
// before one that is new, which is owed nothing.
func TestNewcomerGoesBehindWaker(t *testing.T) {
	var q Queue
	busy, sleeper := NewTask(0, "busy"), NewTask(0, "sleeper")
	q.Run(sleeper, 0)
	for range 10 {
		q.Run(busy, 0)
		busy.Charge(5 * time.Millisecond)
	}
	newcomer := NewTask(0, "newcomer")
	q.Push(newcomer, 0)
	q.Push(sleeper, 5*time.Millisecond)
	if first := q.Pop(); first != sleeper {
		t.Errorf("%v went first", first.Value)
	}
}
