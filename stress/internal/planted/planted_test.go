// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8e4ff29/layover/stress/internal/planted"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// That each is found, a test behind the build tag "planted" tells, which takes minutes.
func TestEveryBugCanBePlanted(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := planted.Overlay(root, t.TempDir(), planted.All()); err != nil {
		t.Error(err)
	}
}

// A bug whose edits never wake, or are never asleep, proves nothing.
func TestEveryEditIsAboutItsBug(t *testing.T) {
	names := make(map[string]bool)
	for _, b := range planted.All() {
		if names[b.Name] {
			t.Errorf("there are two bugs %s", b.Name)
		}
		names[b.Name] = true
		if (len(b.Breaks) == 0) == (b.Says == "") || b.What == "" || len(b.Edits) == 0 {
			t.Errorf("the bug %s is incomplete: %+v", b.Name, b)
		}
		awake := false
		for _, e := range b.Edits {
			awake = awake || strings.Contains(e.New, `planted("`+b.Name+`")`) || strings.Contains(e.New, `plantedNth("`+b.Name+`", `)
		}
		if !awake {
			t.Errorf("nothing wakes the bug %s", b.Name)
		}
	}
}

func TestABugWhoseCodeHasChangedMustBePlantedAnew(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "store.go"), []byte("package store\n\nvar a, b = 1, 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		old        []string
	}{
		{"gone", "has changed", []string{"var c"}},
		{"there twice", "has changed", []string{"1"}},
		{"where another one is", "another place", []string{"a, b", "b = 1, 1"}},
		{"there", "", []string{"var a", "b = 1, 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var bugs []planted.Bug
			for _, old := range c.old {
				bugs = append(bugs, planted.Bug{Name: "some-bug", Edits: []planted.Edit{{File: "store.go", Old: old, New: old}}})
			}
			_, err := planted.Overlay(root, t.TempDir(), bugs)
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "some-bug")) {
				t.Errorf("%v, want an error about %q that names the bug", err, c.want)
			}
		})
	}
}

func TestTheReadmeListsEveryBugAndEveryScenario(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| bug ") {
			rows[line] = true
		}
	}
	for _, b := range planted.All() {
		there := false
		for line := range rows {
			if strings.HasPrefix(line, row(b)) {
				there = true
				delete(rows, line)
			}
		}
		if !there {
			t.Errorf("stress/README.md has no row that begins with\n%s", row(b))
		}
	}
	for line := range rows {
		t.Errorf("stress/README.md has a row for no bug: %s", line)
	}
	for _, s := range scenario.All {
		if line := fmt.Sprintf("\n- `%s`: %s\n", s.Name, s.Sentence); !strings.Contains(string(text), line) {
			t.Errorf("stress/README.md has no line%s", line)
		}
	}
}
