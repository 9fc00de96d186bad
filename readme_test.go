// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover_test

import (
	"os"
	"strings"
	"testing"
)

// The README's embedding example compiles, since it is the body of a Go example
// of package session.
func TestReadmeExampleIsAGoExample(t *testing.T) {
	readme := between(t, "README.md", "```go\n", "```")
	example := between(t, "session/example_readme_test.go", "func Example() {\n", "\n\t// Output")
	if got := strings.ReplaceAll(example, "\n\t", "\n"); strings.TrimSpace(got) != strings.TrimSpace(readme) {
		t.Errorf("README.md has\n%s\nthe Go example has\n%s", readme, got)
	}
}

func between(t *testing.T, file, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), from)
	if !ok {
		t.Fatalf("%s has no %q", file, from)
	}
	part, _, ok := strings.Cut(after, to)
	if !ok {
		t.Fatalf("%s has no %q after %q", file, to, from)
	}
	return part
}
