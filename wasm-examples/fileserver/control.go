package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// nginx -s finds the master process by its pid file and sends it a signal. A guest
// cannot send a signal to another instance of its container, but both share files
// and a localhost: the server listens at a port of 127.0.0.1 of the pod and writes
// it, with a word that only who can read the file knows, where nginx has its pid.
const controlFile = "nginx.pid"

var commands = []string{"quit", "stop", "reload", "reopen"}

// control has handle called with the commands that come, until it is closed. The
// answer is on its way when handle is called.
func control(dir string, handle func(command string)) (closeControl func(), _ error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	secret := rand.Text()
	file := filepath.Join(dir, controlFile)
	if err := os.WriteFile(file, []byte(l.Addr().String()+" "+secret+"\n"), 0o600); err != nil {
		l.Close()
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			line, err := bufio.NewReader(c).ReadString('\n')
			command, ok := strings.CutPrefix(strings.TrimSpace(line), secret+" ")
			ok = ok && err == nil && slices.Contains(commands, command)
			if ok {
				_, err = fmt.Fprintln(c, "ok")
			}
			c.Close()
			if ok && err == nil {
				handle(command)
			}
		}
	}()
	return func() {
		l.Close()
		os.Remove(file)
	}, nil
}

// send sends a command to the server of this container.
func send(dir, command string) error {
	if !slices.Contains(commands, command) {
		return fmt.Errorf("invalid option: \"-s %s\"", command)
	}
	file := filepath.Join(dir, controlFile)
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("open() %q failed (2: No such file or directory)", file)
	}
	address, secret, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	c, err := net.DialTimeout("tcp4", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintln(c, secret, command); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if strings.TrimSpace(answer) != "ok" {
		return fmt.Errorf("the server does not answer: %v", err)
	}
	return nil
}
