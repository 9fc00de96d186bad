// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package planted has bugs to be planted into the code that stress watches, to
// prove that it finds them. Each is a mistake that a tired engineer could have
// made, and breaks a promise.
//
// The code itself knows nothing of them: they are edits of its source, which go
// build reads by -overlay in place of what is there. All of them go into one
// binary, asleep. The environment variable [Variable] wakes one.
package planted

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// Variable is the environment variable that names the bug which is awake.
const Variable = "LAYOVER_PLANTED"

// Bug is a mistake. It is awake where its edits call planted with its name, or
// plantedNth, which is true at every nth call only.
type Bug struct {
	Name   string
	What   string            // goes wrong
	Breaks []promise.Promise // of which one at least is found broken
	Says   string            // what a run says instead that the bug kills
	Flags  []string          // of the run that finds it, if those by default do not
	Edits  []Edit
}

// Edit puts New in the place of Old.
type Edit struct {
	File string // seen from the root of the module
	Old  string // occurs once in the file
	New  string
}

// All returns all bugs.
func All() []Bug { return slices.Concat(ofStore, ofParts, ofSession) }

// Overlay writes the files of a go build that has these bugs to a folder, and
// returns the name of what -overlay takes. root is the folder of the module.
func Overlay(root, folder string, bugs []Bug) (name string, err error) {
	files := make(map[string][]place)
	for _, b := range bugs {
		for _, e := range b.Edits {
			files[e.File] = append(files[e.File], place{bug: b.Name, Edit: e})
		}
	}
	replace := make(map[string]string)
	for file, places := range files {
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return "", err
		}
		edited, err := edit(source, places)
		if err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		replace[file] = string(edited)
		replace[path.Join(path.Dir(file), "planted.go")] = awake(packageOf(source))
	}
	return write(root, folder, replace)
}

// write writes sources to a folder, and the list that says in which places they
// are to be read.
func write(root, folder string, sources map[string]string) (name string, err error) {
	var list struct{ Replace map[string]string }
	list.Replace = make(map[string]string)
	for n, file := range slices.Sorted(maps.Keys(sources)) {
		written := filepath.Join(folder, fmt.Sprintf("%d_%s", n, path.Base(file)))
		if err := os.WriteFile(written, []byte(sources[file]), 0o600); err != nil {
			return "", err
		}
		list.Replace[filepath.Join(root, file)] = written
	}
	text, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	name = filepath.Join(folder, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}

// place is where an edit is made.
type place struct {
	Edit
	bug string
	at  int
}

// edit makes all edits of a file.
func edit(source []byte, places []place) ([]byte, error) {
	for i := range places {
		p := &places[i]
		if n := bytes.Count(source, []byte(p.Old)); n != 1 {
			return nil, fmt.Errorf("the code has changed, and the bug %s must be planted anew: %q is there %d times, expected once", p.bug, p.Old, n)
		}
		p.at = bytes.Index(source, []byte(p.Old))
	}
	slices.SortFunc(places, func(a, b place) int { return a.at - b.at })
	var edited bytes.Buffer
	end := 0
	for _, p := range places {
		if p.at < end {
			return nil, fmt.Errorf("the bug %s must be planted in another place: %q has another bug", p.bug, p.Old)
		}
		edited.Write(source[end:p.at])
		edited.WriteString(p.New)
		end = p.at + len(p.Old)
	}
	edited.Write(source[end:])
	return edited.Bytes(), nil
}

// packageOf returns the name of the package that a file belongs to.
func packageOf(source []byte) string {
	for line := range strings.Lines(string(source)) {
		if name, ok := strings.CutPrefix(line, "package "); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// awake returns what the edits of a package call.
func awake(name string) string {
	return fmt.Sprintf(`package %s

import (
	"os"
	"sync/atomic"
)

var (
	plantedName  = os.Getenv(%q)
	plantedCalls atomic.Uint64
)

func planted(bug string) bool { return plantedName == bug }

func plantedNth(bug string, n uint64) bool { return plantedName == bug && plantedCalls.Add(1)%%n == 0 }
`, name, Variable)
}
