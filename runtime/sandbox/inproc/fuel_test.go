package inproc

import (
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

const worker = `
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(int argc, char **argv) {
	int n = atoi(argv[1]), *v = malloc(n * sizeof *v);
	unsigned x = 1;
	for (int i = 0; i < n; i++) v[i] = (int)((x = x * 1664525 + 1013904223) >> 8);
	qsort(v, n, sizeof *v, compare);
	printf("%d\n", v[n / 2]);
	free(v);
	return 0;
}
`

// The same module and input are charged the same fuel, alone or among others and
// however often they are interrupted.
func TestFuelIsDeterministic(t *testing.T) {
	n := sharedNode(t)
	module := wasmtest.BuildC(t, worker)
	pod := n.pod(t, nil)
	s := n.sandbox(t, pod)
	fuel := func(name, input string) uint64 {
		c := n.startNamed(t, s, pod, name, module, input)
		<-c.Done()
		if c.Status().Code != 0 {
			t.Errorf("%s: %+v", name, c.Status())
		}
		return c.Usage().Fuel
	}
	size := 200_000
	if raceEnabled {
		size = 1_000 // interpreted, and slowly
	}
	all := strconv.Itoa(size)
	alone := fuel("alone", all)
	if less := fuel("less", strconv.Itoa(size/2)); less >= alone || less == 0 {
		t.Errorf("sorting half as much was charged %d, and all of it %d", less, alone)
	}
	var wg sync.WaitGroup
	for i := range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			if got := fuel(string(rune('a'+i)), all); got != alone {
				t.Errorf("charged %d among others, %d alone", got, alone)
			}
		})
	}
	wg.Wait()
	t.Logf("%d units", alone)
}
