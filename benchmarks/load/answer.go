package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"responses-gateway/benchmarks/script"
)

// answer is one checked answer. first is the time to the first token, or to the header of a whole answer.
type answer struct {
	err          error
	id           string
	tokens       int
	first, total time.Duration
	delays       []time.Duration // of stamped tokens, from the upstream's write to here
}

// final is the end of an answer: the whole response object, or the metadata of a chat completion.
type final struct {
	id, text, status string
	input, output    int
	calls            int // of the tool, that ended as scripted
}

// ask sends one request, reads the answer to its end and checks it.
func (t *target) ask(body []byte, turn int) (a answer) {
	begin := time.Now()
	f, err := t.exchange(body, &a, begin)
	a.total, a.id, a.tokens = time.Since(begin), f.id, t.script.Tokens
	if err == nil {
		err = t.check(f, a, turn)
	}
	a.err = err
	return a
}

func (t *target) exchange(body []byte, a *answer, begin time.Time) (final, error) {
	response, err := t.send(http.MethodPost, t.url, body)
	if err != nil {
		return final{}, err
	}
	defer response.Close()
	if t.stream {
		r := reader{target: t, answer: a, begin: begin}
		return r.read(response)
	}
	a.first = time.Since(begin)
	whole, err := io.ReadAll(response)
	if err != nil {
		return final{}, err
	}
	if t.chat {
		return parseCompletion(whole)
	}
	f, err := t.parseResponse(whole)
	if t.background && err == nil {
		return t.wait(f)
	}
	return f, err
}

// send returns the body of an answer with status 200.
func (t *target) send(method, url string, body []byte) (io.ReadCloser, error) {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+t.key)
	response, err := t.client.Do(request)
	if err != nil {
		return nil, errors.Unwrap(err) // without the address, so that equal errors are counted together
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		return nil, fmt.Errorf("status %d: %s", response.StatusCode, said)
	}
	return response.Body, nil
}

// check compares the answer with its script.
func (t *target) check(f final, a answer, turn int) error {
	switch {
	case f.status != "completed":
		return fmt.Errorf("status is %q", f.status)
	case t.script.Stamp && len(a.delays) != t.script.Tokens:
		return fmt.Errorf("%d tokens, want %d", len(a.delays), t.script.Tokens)
	case !t.script.Stamp && f.text != script.Text(t.script.Tokens):
		return fmt.Errorf("the text differs: %d bytes, want %d", len(f.text), len(script.Text(t.script.Tokens)))
	case !t.chat && f.calls != t.script.Turns()-1:
		return fmt.Errorf("%d calls of the tool, want %d", f.calls, t.script.Turns()-1)
	case t.strict && f.input != t.messages(turn):
		return fmt.Errorf("the upstream got %d messages, want %d", f.input, t.messages(turn))
	case t.strict && f.output != t.tokens():
		return fmt.Errorf("usage says %d tokens, want %d", f.output, t.tokens())
	}
	return nil
}

// messages is the number that the upstream gets in all its turns: each has a call and a result more than the one before.
func (t *target) messages(turn int) int {
	if t.session.items > 0 {
		return t.session.messages
	}
	turns := t.script.Turns()
	return turns*(2*turn-1) + turns*(turns-1)
}

// tokens is the answer's usage; a call counts as one.
func (t *target) tokens() int {
	return t.script.Tokens + t.script.Reasoning + t.script.Turns() - 1
}

func (t *target) parseResponse(data []byte) (final, error) {
	var v struct {
		ID, Status string
		Output     []struct {
			Type, Status string
			Content      []struct{ Text string }
		}
		Usage struct {
			Input  int `json:"input_tokens"`
			Output int `json:"output_tokens"`
		}
	}
	err := json.Unmarshal(data, &v)
	f := final{id: v.ID, status: v.Status, input: v.Usage.Input, output: v.Usage.Output}
	ended := "completed"
	if t.script.Void {
		ended = "failed"
	}
	for _, item := range v.Output {
		switch {
		case item.Type == "message" && len(item.Content) == 1:
			f.text += item.Content[0].Text
		case item.Type == "web_search_call" && item.Status == ended:
			f.calls++
		}
	}
	return f, err
}

func parseCompletion(data []byte) (final, error) {
	var v struct {
		Choices []struct {
			Message struct{ Content string }
			Finish  string `json:"finish_reason"`
		}
		Usage struct {
			Input  int `json:"prompt_tokens"`
			Output int `json:"completion_tokens"`
		}
	}
	err := json.Unmarshal(data, &v)
	f := final{input: v.Usage.Input, output: v.Usage.Output}
	if len(v.Choices) == 1 && v.Choices[0].Finish == "stop" {
		f.status, f.text = "completed", v.Choices[0].Message.Content
	}
	return f, err
}
