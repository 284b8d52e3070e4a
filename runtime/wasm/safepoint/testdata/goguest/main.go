// A guest for the rewriter's tests: goroutines, garbage and maps, with the same
// output every time.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
)

func main() {
	var wg sync.WaitGroup
	sums := make([]string, 8)
	for i := range sums {
		wg.Go(func() {
			words := map[string]int{}
			for n := range 20000 {
				words[fmt.Sprintf("%x", n*n%977)] += n
			}
			keys := make([]string, 0, len(words))
			for k, v := range words {
				keys = append(keys, fmt.Sprint(k, v))
			}
			sort.Strings(keys)
			sums[i] = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(keys, " "))))
		})
	}
	wg.Wait()
	for _, s := range sums {
		fmt.Println(s[:16], s == sums[0])
	}
	os.Exit(7)
}
