package main

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// pollEvery is how often a background response is asked for.
const pollEvery = 50 * time.Millisecond

// wait asks for a background response until it has ended.
func (t *target) wait(f final) (final, error) {
	id := f.id
	for f.status == "queued" || f.status == "in_progress" {
		time.Sleep(pollEvery)
		response, err := t.send(http.MethodGet, t.url+"/"+id, nil)
		if err != nil {
			return f, err
		}
		whole, err := io.ReadAll(response)
		response.Close()
		if err != nil {
			return f, err
		}
		if f, err = t.parseResponse(whole); err != nil {
			return f, err
		}
	}
	return f, nil
}

// resumeStored has one response generated, and its events after number p.resume read again and again.
func (t *target) resumeStored(p plan, body []byte) ([]answer, error) {
	stored := t.ask(body, p.turn)
	if stored.err != nil {
		return nil, stored.err
	}
	url := fmt.Sprintf("%s/%s?stream=true&starting_after=%d", t.url, stored.id, p.resume)
	return t.closedLoop(p, func() (a answer) {
		begin := time.Now()
		a.err = t.resume(url, p.resume+1, &a, begin)
		a.total, a.id, a.tokens = time.Since(begin), stored.id, t.script.Tokens
		return a
	}), nil
}

// resume reads the events from number first on.
func (t *target) resume(url string, first int, a *answer, begin time.Time) error {
	response, err := t.send(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	defer response.Close()
	r := reader{target: t, answer: a, begin: begin, events: first, resumed: true}
	f, err := r.read(response)
	if err == nil && f.status != "completed" {
		err = fmt.Errorf("status is %q", f.status)
	}
	return err
}
