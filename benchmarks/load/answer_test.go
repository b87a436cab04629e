package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	created   = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0}\n\n"
	first     = "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"delta\":\"A\"}\n\n"
	second    = "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":2,\"delta\":\" gateway\"}\n\n"
	completed = `data: {"type":"response.completed","sequence_number":3,"response":{"id":"r","status":"completed",` +
		`"output":[{"type":"message","content":[{"text":"A gateway"}]}],"usage":{"input_tokens":1,"output_tokens":2}}}` + "\n\n"
)

func TestStreamsAreCheckedWhole(t *testing.T) {
	for name, c := range map[string]struct{ stream, complaint string }{
		"right":              {created + first + second + completed, ""},
		"cut":                {created + first + second, "broke off"},
		"token missing":      {created + first + completed, "sequence_number of event 2"},
		"delta changed":      {created + first + strings.Replace(second, "gateway", "proxy", 1) + completed, "the final text"},
		"text changed":       {strings.ReplaceAll(created+first+second+completed, "gateway", "proxy"), "the text differs"},
		"event out of order": {created + second + first + completed, "sequence_number of event 1"},
		"no beginning":       {strings.Replace(first, ":1", ":0", 1) + completed, "not response.created"},
		"not JSON":           {created + "data: {\n\n", "not JSON"},
		"incomplete":         {created + first + second + strings.Replace(completed, `"status":"completed"`, `"status":"incomplete"`, 1), "status is"},
		"history lost":       {created + first + second + strings.Replace(completed, `"input_tokens":1`, `"input_tokens":0`, 1), "messages"},
	} {
		t.Run(name, func(t *testing.T) {
			got := askFor(t, "/v1/responses", "sim-t2", c.stream)
			expect(t, got, c.complaint)
		})
	}
}

func TestCallsOfTheToolAreCounted(t *testing.T) {
	const call = `"output":[{"type":"web_search_call","status":"completed"},{"type":"message","content":[{"text":"A gateway"}]}],` +
		`"usage":{"input_tokens":4,"output_tokens":3}`
	plain := `"output":[{"type":"message","content":[{"text":"A gateway"}]}],"usage":{"input_tokens":1,"output_tokens":2}`
	called := created + first + second + strings.Replace(completed, plain, call, 1)
	for name, c := range map[string]struct{ model, stream, complaint string }{
		"right":                  {"sim-t2-calls1", called, ""},
		"none":                   {"sim-t2-calls1", created + first + second + completed, "0 calls of the tool, want 1"},
		"not wanted":             {"sim-t2", called, "1 calls of the tool, want 0"},
		"failed":                 {"sim-t2-calls1", strings.Replace(called, "completed\"},", "failed\"},", 1), "0 calls of the tool"},
		"to fail":                {"sim-t2-calls1-void", strings.Replace(called, "completed\"},", "failed\"},", 1), ""},
		"result lost on the way": {"sim-t2-calls1", strings.Replace(called, `"input_tokens":4`, `"input_tokens":3`, 1), "3 messages, want 4"},
	} {
		t.Run(name, func(t *testing.T) {
			got := askFor(t, "/v1/responses", c.model, c.stream)
			expect(t, got, c.complaint)
		})
	}
}

func TestStampedTokensAreCountedAndInOrder(t *testing.T) {
	const head, tail = `data: {"choices":[{"delta":{"content":"`, "\"}}]}\n\n"
	const end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" +
		"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n"
	for name, c := range map[string]struct{ stream, complaint string }{
		"one by one": {head + "@10;" + tail + head + "@20;" + tail + end, ""},
		"together":   {head + "@10;@20;" + tail + end, ""},
		"missing":    {head + "@10;" + tail + end, "1 tokens, want 2"},
		"swapped":    {head + "@20;@10;" + tail + end, "out of order"},
		"torn":       {head + "@10;@2" + tail + end, "not a stamped token"},
	} {
		t.Run(name, func(t *testing.T) {
			got := askFor(t, "/v1/chat/completions", "sim-t2-stamp", c.stream)
			expect(t, got, c.complaint)
		})
	}
}

func askFor(t *testing.T, path, model, stream string) answer {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, stream) }))
	defer server.Close()
	asked := target{url: server.URL + path, model: model, stream: true, store: true, strict: true}
	if err := asked.prepare(1); err != nil {
		t.Fatal(err)
	}
	return asked.ask(asked.body(1, ""), 1)
}

func expect(t *testing.T, got answer, complaint string) {
	switch {
	case complaint == "" && got.err != nil:
		t.Fatalf("refused: %v", got.err)
	case complaint != "" && (got.err == nil || !strings.Contains(got.err.Error(), complaint)):
		t.Fatalf("got %v, want %q", got.err, complaint)
	}
}
