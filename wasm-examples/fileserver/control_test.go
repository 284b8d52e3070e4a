package main

import "testing"

func TestControl(t *testing.T) {
	dir := t.TempDir()
	if err := send(dir, "quit"); err == nil {
		t.Fatal("there is no server, and no error")
	}
	got := make(chan string, 1)
	closeControl, err := control(dir, func(command string) { got <- command })
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range commands {
		if err := send(dir, command); err != nil {
			t.Fatal(err)
		}
		if c := <-got; c != command {
			t.Errorf("sent %q, got %q", command, c)
		}
	}
	if err := send(dir, "explode"); err == nil {
		t.Error("a command that is none was sent")
	}
	closeControl()
	if err := send(dir, "quit"); err == nil {
		t.Error("the server has gone, and there is no error")
	}
}
