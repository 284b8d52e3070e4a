package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

func TestScreenPrefixesWholeLines(t *testing.T) {
	var out, errs bytes.Buffer
	s := newScreen(&out, &errs, screenOptions{prefix: true})
	stdio := func(name string) (write func(string)) {
		w := s.stdio(container.Config{Pod: container.PodRef{Name: "p"}, Name: name}).Stdout
		return func(text string) { w.Write([]byte(text)) }
	}
	a, b := stdio("a"), stdio("b")
	a("one ")
	b("begun")
	a("line\ntwo\nrest")
	exited := lifecycle.ContainerExited{At: time.Unix(0, 0), Container: lifecycle.ContainerRef{Name: "a"}}
	s.fact(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, exited)
	b(" and ended\n")
	s.close()
	want := "[pod/p/a] one line\n[pod/p/a] two\n[pod/p/a] rest\n[pod/p/b] begun and ended\n"
	if out.String() != want {
		t.Errorf("stdout\n%s\nwant\n%s", &out, want)
	}
	if len(s.writers) != 2 {
		t.Errorf("%d writers kept, want the two of b", len(s.writers))
	}
}

func TestScreenBoundsALineThatDoesNotEnd(t *testing.T) {
	var out, errs bytes.Buffer
	s := newScreen(&out, &errs, screenOptions{prefix: true})
	w := s.stdio(container.Config{Pod: container.PodRef{Name: "p"}, Name: "c"}).Stdout
	chunk := []byte(strings.Repeat("x", 1000))
	for range 1000 {
		w.Write(chunk)
	}
	if held := len(s.writers[0].rest); held > maxLine {
		t.Errorf("%d bytes held back", held)
	}
	s.close()
	if n := strings.Count(out.String(), "x"); n != 1000*1000 {
		t.Errorf("%d bytes came out", n)
	}
}

func TestScreenWithoutPrefixPassesBytesOn(t *testing.T) {
	var out, errs bytes.Buffer
	s := newScreen(&out, &errs, screenOptions{})
	w := s.stdio(container.Config{}).Stderr
	w.Write([]byte("prompt> "))
	if errs.String() != "prompt> " {
		t.Errorf("stderr %q: a prompt is held back", errs.String())
	}
	s.message("ours")
	if want := "prompt> \nwasmpod: ours\n"; errs.String() != want {
		t.Errorf("stderr %q, want %q", errs.String(), want)
	}
}
