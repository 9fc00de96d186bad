// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package main

// raceDetector says that this process has it.
const raceDetector = false
