package cgroup

import (
	"testing"

	"pgregory.net/rapid"
)

func user(priority int32, used, request int64) MemoryUser {
	return MemoryUser{priority, []ContainerMemory{{"c", used, request}}}
}

func TestMemoryVictim(t *testing.T) {
	const mi = 1 << 20
	for _, tt := range []struct {
		name  string
		users []MemoryUser
		want  int // -1: none
	}{
		{"RES-31 nobody", nil, -1},
		{"RES-31 over its request before one that is larger", []MemoryUser{user(0, 500*mi, 600*mi), user(0, 2*mi, mi)}, 1},
		{"RES-31 BestEffort before Guaranteed", []MemoryUser{user(0, 100*mi, 100*mi), user(0, mi, 0)}, 1},
		{"RES-31 usage over request counts more than priority", []MemoryUser{user(-10, mi, 2*mi), user(1000, 2*mi, mi)}, 1},
		{"RES-31 then the lower priority", []MemoryUser{user(10, 90*mi, 0), user(5, 2*mi, 0)}, 1},
		{"RES-31 then the furthest above its request", []MemoryUser{user(0, 90*mi, 80*mi), user(0, 30*mi, 10*mi)}, 1},
		{"RES-32 critical pods stay", []MemoryUser{user(CriticalPriority, 900*mi, 0), user(CriticalPriority-1, mi, 2*mi)}, 1},
		{"RES-32 only critical ones", []MemoryUser{user(CriticalPriority, mi, 0)}, -1},
		{"RES-31 who uses nothing is of no help", []MemoryUser{{}, user(0, 0, 0)}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := MemoryVictim(tt.users)
			if !ok {
				got = -1
			}
			if got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
	t.Run("RES-31 the message", func(t *testing.T) {
		u := MemoryUser{0, []ContainerMemory{{"a", 64 << 20, 32 << 20}, {"b", 1, 2}, {"c", 5<<10 + 1, 0}}}
		want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. " +
			"Container a was using 64Mi, request is 32Mi, has larger consumption of memory. " +
			"Container c was using 5Ki, request is 0, has larger consumption of memory. "
		if got := MemoryEviction(&u, 100<<20, 80<<20); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

// Nobody is evicted while somebody is there who should go first.
func TestMemoryVictimIsFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		users := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) MemoryUser {
			return user(rapid.Int32Range(-2, 2).Draw(t, "priority")*CriticalPriority/2, rapid.Int64Range(0, 5).Draw(t, "used"), rapid.Int64Range(0, 5).Draw(t, "request"))
		}), 0, 8).Draw(t, "users")
		v, ok := MemoryVictim(users)
		for i := range users {
			u := &users[i]
			if u.Priority >= CriticalPriority || !u.used() {
				if ok && v == i {
					t.Fatalf("%+v", *u)
				}
				continue
			}
			if !ok || before(u, &users[v]) {
				t.Fatalf("%+v goes before %+v", *u, users[v])
			}
		}
	})
}

func TestParseEvictionHard(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "memory.available<100Mi": 100 << 20, " memory.available<5% ": 50, "memory.available<0": 0, "memory.available<0.5%": 5,
	} {
		if got, err := ParseEvictionHard(text, 1000); got != want || err != nil {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"memory", "memory.available<", "memory.available<-1", "memory.available<100%", "memory.available<x%", "nodefs.available<10%", "memory.available>1"} {
		if got, err := ParseEvictionHard(text, 1000); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}
