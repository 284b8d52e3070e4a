package wasm

import (
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// maxTrapFrames is how many functions a trap's message names.
const maxTrapFrames = 5

// maxTrapText bounds a message: what a guest calls its functions ends up in it.
const maxTrapText = 1024

// describe makes one line of an error of wazero, which comes with a stack of
// the guest's functions and sometimes with one of ours.
func (m *moduleInfo) describe(err error) string {
	text, stack, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
	text, _, _ = strings.Cut(text, "\n")
	if cause, ok := strings.CutSuffix(text, " (recovered by wazero)"); ok {
		text = "host function failed: " + cause
		if cause == errStackOverflow.Error() { // which we have found, not wazero
			text = "trap: " + cause
		}
	} else {
		text = "trap: " + strings.TrimPrefix(text, "wasm error: ")
	}
	stack, _, _ = strings.Cut(stack, "\n\n") // from there on it is Go's
	var names []string
	for line := range strings.Lines(stack) {
		name, _, isFrame := strings.Cut(strings.TrimSpace(line), "(")
		name = strings.TrimPrefix(name, ".")
		if !isFrame || name == "" || strings.HasPrefix(name, safepoint.HelperPrefix) {
			continue
		}
		if names = append(names, m.originalName(name)); len(names) == maxTrapFrames {
			break
		}
	}
	if len(names) > 0 {
		text += " in " + names[0]
	}
	if len(names) > 1 {
		text += ", called from " + strings.Join(names[1:], ", ")
	}
	if len(text) > maxTrapText {
		text = strings.ToValidUTF8(text[:maxTrapText], "") + "…"
	}
	return text
}

// originalName finds the export of a function without a name, or undoes the
// shift of its number by the added imports.
func (m *moduleInfo) originalName(name string) string {
	i := strings.LastIndexByte(name, '$')
	if i < 0 {
		return name
	}
	n, err := strconv.Atoi(name[i+1:])
	if err != nil || n < m.imports {
		return name
	}
	if export := m.exportNames[uint32(n)]; export != "" {
		return export
	}
	return name[:i+1] + strconv.Itoa(n-m.added)
}
