// Command server is the well-behaved guest: it answers each line of its input
// with a line.
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
)

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Printf("%s %x\n", in.Bytes(), sha256.Sum256(in.Bytes()))
	}
}
