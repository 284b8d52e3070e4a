package manifest

import "strings"

// nearest finds the name that was probably meant by a misspelt one, "" if
// none is near. exact means that only upper and lower case differ.
func nearest(word string, names []string) (guess string, exact bool) {
	if len(word) > 64 {
		return "", false
	}
	best := 1 + max(1, len(word)/3)
	for _, n := range names {
		if strings.EqualFold(word, n) {
			return n, true
		}
		if d := distance(strings.ToLower(word), strings.ToLower(n), best); d < best {
			guess, best = n, d
		}
	}
	return guess, false
}

// distance is the edit distance of two words with adjacent letters swapped
// counted as one edit, or limit if it is not below that.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return min(prev[len(b)], limit)
}
