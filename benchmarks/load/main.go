// Command load sends many requests to a gateway on this machine, checks every answer in full, and prints one JSON object.
//
//	load -url …/v1/responses -model sim-t50 -workers 16 -seconds 3                  closed loop
//	load -url … -model sim-t200-p20-stamp -stream -workers 400 -each 1 -ramp 2s     400 streams at once
//	load -url … -model sim-t50 -items 600 -bytes 1800000 -workers 1 -every 1s       a large request each second
//	load -url … -model sim-t200-p20-stamp -stream -background -workers 100 -each 1  streams that outlive their connection
//	load -url … -model sim-t2000 -stream -resume 1000 -workers 8                    the second half of a stored stream, again and again
//	load -url … -model sim-t10 -background -workers 50                              background responses, asked for until they have ended
//	load -url … -model sim-t50 -chains ids.json -count 200 -to 4                    200 chains, brought to turn 4
//
// It is limited in count (-workers times -each), in time (-seconds), and to loopback addresses.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"responses-gateway/benchmarks/script"
)

type plan struct {
	workers, each, turn  int
	seconds, ramp, every time.Duration
	chains               string
	count, to            int
	resume               int
}

func main() {
	t, p := parseFlags()
	var answers []answer
	var err error
	begin := time.Now()
	switch body := t.body(p.turn, ""); {
	case p.chains != "":
		answers, err = t.extendChains(p)
	case p.resume >= 0:
		answers, err = t.resumeStored(p, body)
	default:
		answers = t.closedLoop(p, func() answer { return t.ask(body, p.turn) })
	}
	if err != nil {
		exit(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(summarise(answers, time.Since(begin))); err != nil {
		exit(err)
	}
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(2)
}

func parseFlags() (*target, plan) {
	var t target
	var p plan
	flag.StringVar(&t.url, "url", "", "an address of this machine that ends in /chat/completions or /responses")
	flag.StringVar(&t.key, "key", "sk-none", "bearer token")
	flag.StringVar(&t.model, "model", "sim-t20", "the script of the answer")
	flag.BoolVar(&t.stream, "stream", false, "ask for server-sent events")
	flag.BoolVar(&t.store, "store", true, "let the gateway store the response")
	flag.BoolVar(&t.background, "background", false, "let the gateway generate the response in the background")
	flag.IntVar(&p.resume, "resume", -1, "ask once, then only for the events of that response after this number")
	flag.BoolVar(&t.strict, "strict", false, "also check event numbers and usage")
	flag.BoolVar(&t.parts, "parts", false, "send texts as content parts")
	flag.IntVar(&t.session.items, "items", 0, "instead of a question, a coding agent's session of so many items, with its functions")
	flag.IntVar(&t.session.bytes, "bytes", 0, "size of the session")
	flag.IntVar(&p.workers, "workers", 16, "questions at once")
	flag.IntVar(&p.each, "each", 100000, "questions a worker asks at most")
	flag.IntVar(&p.turn, "turn", 1, "the question is this turn of a conversation, sent whole")
	flag.DurationVar(&p.seconds, "seconds", 30*time.Second, "ask no new question after this time")
	flag.DurationVar(&p.every, "every", 0, "ask no more often than this, each worker")
	flag.DurationVar(&p.ramp, "ramp", 0, "start the workers over this time")
	flag.StringVar(&p.chains, "chains", "", "file with the last response of each chain; made when missing")
	flag.IntVar(&p.count, "count", 100, "number of chains to make")
	flag.IntVar(&p.to, "to", 1, "turn to bring the chains to")
	flag.Parse()
	if err := t.prepare(p.workers); err != nil {
		exit(err)
	}
	return &t, p
}

// prepare checks the target and opens its pool of connections.
func (t *target) prepare(connections int) error {
	u, err := url.Parse(t.url)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not a loopback address", t.url)
	}
	if t.script, err = script.Parse(t.model); err != nil {
		return err
	}
	t.session.messages = len(t.session.history(true, 0))
	t.chat = strings.HasSuffix(u.Path, "/chat/completions")
	t.client = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true, ReadBufferSize: 16 << 10,
	}}
	return nil
}

// closedLoop has each worker send the next request as soon as the last one is answered.
func (t *target) closedLoop(p plan, ask func() answer) []answer {
	stop := time.Now().Add(p.seconds)
	return inParallel(p.workers, func(worker int) (answers []answer) {
		time.Sleep(p.ramp * time.Duration(worker) / time.Duration(p.workers))
		for i := 0; i < p.each && time.Now().Before(stop); i++ {
			next := time.Now().Add(p.every)
			answers = append(answers, ask())
			time.Sleep(time.Until(next))
		}
		return answers
	})
}

// chainState is the state passed to the next run: the turn that all chains have reached, and their last responses.
type chainState struct {
	Turn int      `json:"turn"`
	IDs  []string `json:"ids"`
}

// extendChains extends every chain to turn p.to by previous_response_id; each worker handles whole chains.
func (t *target) extendChains(p plan) ([]answer, error) {
	state := chainState{IDs: make([]string, p.count)}
	if saved, err := os.ReadFile(p.chains); err == nil {
		if err := json.Unmarshal(saved, &state); err != nil {
			return nil, err
		}
	}
	answers := inParallel(p.workers, func(worker int) (answers []answer) {
		for c := worker; c < len(state.IDs); c += p.workers {
			for turn := state.Turn + 1; turn <= p.to; turn++ {
				a := t.ask(t.body(turn, state.IDs[c]), turn)
				answers = append(answers, a)
				if a.err != nil {
					break
				}
				state.IDs[c] = a.id
			}
		}
		return answers
	})
	state.Turn = p.to
	saved, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	return answers, os.WriteFile(p.chains, saved, 0o600)
}

// inParallel runs all workers and joins their answers.
func inParallel(workers int, work func(worker int) []answer) (all []answer) {
	var wait sync.WaitGroup
	parts := make([][]answer, workers)
	for w := range parts {
		wait.Add(1)
		go func(w int) {
			defer wait.Done()
			parts[w] = work(w)
		}(w)
	}
	wait.Wait()
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}
