package wasip1

import (
	"context"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

const goFilesProgram = `package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	fmt.Println(os.Args[1:], os.Getenv("GREETING"))
	check(os.MkdirAll("/a/b/c", 0o755))
	check(os.WriteFile("/a/b/c/file", []byte("hello"), 0o644))
	check(os.Rename("/a/b/c/file", "/a/b/moved"))
	check(os.Symlink("/a/b/moved", "/a/link"))
	data, err := os.ReadFile("/a/link")
	check(err)
	fmt.Println(string(data))
	for i := range 300 {
		check(os.WriteFile(fmt.Sprintf("/a/b/c/%03d", i), nil, 0o644))
	}
	entries, err := os.ReadDir("/a/b/c")
	check(err)
	fmt.Println(len(entries), entries[299].Name())
	check(os.RemoveAll("/a/b"))
	_, err = os.Stat("/a/b")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	_, err = os.Open("/etc/../../x")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	when := time.Unix(1000000000, 5000)
	check(os.WriteFile("/t", nil, 0o644))
	check(os.Chtimes("/t", when, when))
	info, err := os.Stat("/t")
	check(err)
	fmt.Println(info.ModTime().Equal(when))
	began := time.Now()
	time.Sleep(20 * time.Millisecond)
	fmt.Println(time.Since(began) >= 20*time.Millisecond)
	in, err := io.ReadAll(os.Stdin)
	check(err)
	fmt.Println(strings.ToUpper(string(in)))
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	check(err)
	check(null.Close())
	fmt.Fprintln(os.Stderr, "to stderr")
	os.Exit(256 + 7)
}
`

func TestGoProgram(t *testing.T) {
	r := run(t, context.Background(), wasmtest.BuildGo(t, goFilesProgram), ProcessConfig{
		Args:  []string{"prog", "one", "two"},
		Env:   []string{"GREETING=hi"},
		Stdin: strings.NewReader("from stdin"),
		Root:  rootFS(t.TempDir()),
	})
	want := "[one two] hi\nhello\n300 299\ntrue\ntrue\ntrue\ntrue\nFROM STDIN\n"
	if r.stdout != want || r.code != 7 || r.stderr != "to stderr\n" {
		t.Errorf("code %d, stderr %q, stdout:\n%s\nwant code 7 and:\n%s", r.code, r.stderr, r.stdout, want)
	}
}
