// Command gobench spends its time in the standard library: JSON, sorting, maps.
package main

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

type record struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Tags  []string          `json:"tags"`
	Attrs map[string]string `json:"attrs"`
}

func main() {
	var records []record
	for i := range 1500 {
		records = append(records, record{
			ID: i * 7919 % 1500, Name: fmt.Sprintf("record %d", i), Tags: strings.Fields("a b c d e f"),
			Attrs: map[string]string{"k": fmt.Sprint(i), "square": fmt.Sprint(i * i)},
		})
	}
	text, err := json.Marshal(records)
	if err != nil {
		panic(err)
	}
	sum := len(text)
	for range 3 {
		var back []record
		if err := json.Unmarshal(text, &back); err != nil {
			panic(err)
		}
		sort.Slice(back, func(i, j int) bool { return back[i].ID < back[j].ID })
		count := map[string]int{}
		for _, r := range back {
			count[r.Attrs["square"]]++
			for _, t := range r.Tags {
				count[t] += r.ID
			}
		}
		sum += len(count) + count["c"] + back[10].ID
	}
	counts := map[uint32]int{}
	for seed, i := uint32(1), 0; i < 200000; i++ {
		seed = seed*1664525 + 1013904223
		counts[seed>>20]++
	}
	fmt.Println(sum, len(counts))
}
