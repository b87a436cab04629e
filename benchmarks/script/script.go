// Package script is shared by the simulated upstream and the load generator: a model's name determines
// its answer, so the client knows the whole text of every answer in advance.
//
// A name is "sim-" followed by options joined by "-", for example sim-t200-p20-r50-stamp:
//
//	t<n>      tokens of the answer                    p<n>      pause between tokens, ms
//	r<n>      tokens of thinking before it            f<n>      wait before the first token, ms
//	w<n>      tokens per network write (1)            stamp     each token is "@<Unix ns>;", when it was written
//	status<n> fail with this HTTP status              cut<n>    drop the connection after n tokens
//	garble<n> send a broken chunk after n tokens      stall<n>  send nothing more after n tokens
//
// With calls<n> the tool web_search is offered, and called n times, once per turn, before the answer:
//
//	void      the calls have no query, so each fails  same      every call has the same query
//	search<n> the search takes n ms
package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Script is a parsed model name. A fault position is -1 if the fault is not requested.
type Script struct {
	Tokens, Reasoning, PerWrite int
	Pause, First                time.Duration
	Stamp                       bool
	Status, Cut, Garble, Stall  int
	Calls                       int // -1: no tool is offered
	Search                      time.Duration
	Void, Same                  bool
}

// Parse reads a model name. Anything before "sim-" (a router's prefix) is ignored.
func Parse(model string) (Script, error) {
	s := Script{PerWrite: 1, Cut: -1, Garble: -1, Stall: -1, Calls: -1}
	at := strings.LastIndex(model, "sim-")
	if at < 0 {
		return s, fmt.Errorf("model %q: want sim-t<tokens>…", model)
	}
	for _, option := range strings.Split(model[at+len("sim-"):], "-") {
		if s.mark(option) {
			continue
		}
		name := strings.TrimRight(option, "0123456789")
		n, err := strconv.Atoi(option[len(name):])
		if err != nil || !s.set(name, n) {
			return s, fmt.Errorf("model %q: unknown option %q", model, option)
		}
	}
	if s.PerWrite < 1 {
		return s, fmt.Errorf("model %q: w must be at least 1", model)
	}
	return s, nil
}

func (s *Script) mark(option string) bool {
	switch option {
	case "stamp":
		s.Stamp = true
	case "void":
		s.Void = true
	case "same":
		s.Same = true
	default:
		return false
	}
	return true
}

func (s *Script) set(name string, n int) bool {
	ms := time.Duration(n) * time.Millisecond
	switch name {
	case "t":
		s.Tokens = n
	case "r":
		s.Reasoning = n
	case "w":
		s.PerWrite = n
	case "p":
		s.Pause = ms
	case "f":
		s.First = ms
	case "status":
		s.Status = n
	case "cut":
		s.Cut = n
	case "garble":
		s.Garble = n
	case "stall":
		s.Stall = n
	case "calls":
		s.Calls = n
	case "search":
		s.Search = ms
	default:
		return false
	}
	return true
}

// Turns is the number of model turns for one answer.
func (s Script) Turns() int {
	if s.Calls < 0 {
		return 1
	}
	return s.Calls + 1
}

// Duration is how long the answer takes to write.
func (s Script) Duration() time.Duration {
	return s.First + s.Pause*time.Duration(s.Reasoning+s.Tokens)
}

// Vocabulary is the tokens: like a tokenizer's, most with a space in front, some to be escaped in JSON, some not ASCII.
var Vocabulary = strings.Split(`A| gateway| carries| tokens| from| one| socket| to| another|:| "|通|义|"|,| naïve|, |line
|break|	tab| C:\|path| <em>|x|</em>| 🚀| and| 1|.|5| more|.
`, "|")

// Text is a text of n tokens: the vocabulary over and over.
func Text(n int) string {
	var b strings.Builder
	for i := 0; i < n; i++ {
		b.WriteString(Vocabulary[i%len(Vocabulary)])
	}
	return b.String()
}
