// Command upstream is a simulated Qwen server with Chat Completions like vLLM's, and the search engine for its tool calls.
// The model's name is the script of the answer (package script). It listens on loopback only.
//
// usage.prompt_tokens is the number of messages received, so that a client can check whether a gateway
// forwarded the whole conversation.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"responses-gateway/benchmarks/script"
)

type request struct {
	Model    string `json:"model"`
	Messages []struct {
		Role string `json:"role"`
	} `json:"messages"`
	Stream        bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

var answers int64 // numbers the answers' ids

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	models := flag.String("models", "sim-t20", "names to list, joined by commas; any other script is served too")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	mux.HandleFunc("/v1/models", list(strings.Split(*models, ",")))
	mux.HandleFunc("/v1/chat/completions", complete)
	mux.HandleFunc("/search", search)
	log.Fatal(http.ListenAndServe(net.JoinHostPort("127.0.0.1", strconv.Itoa(*port)), mux))
}

func list(names []string) http.HandlerFunc {
	var entries []string
	for _, name := range names {
		entries = append(entries, fmt.Sprintf(`{"id":%q,"object":"model","created":1,"owned_by":"vllm","root":%q,"parent":null,"max_model_len":262144}`, name, name))
	}
	body := `{"object":"list","data":[` + strings.Join(entries, ",") + `]}`
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, body)
	}
}

func complete(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	s, err := script.Parse(req.Model)
	switch {
	case err != nil:
		fail(w, http.StatusNotFound, err.Error())
	case s.Status != 0:
		fail(w, s.Status, "as the script says")
	case req.results() < s.Calls:
		newCall(req, s).write(w, req.Stream)
	case req.Stream:
		newAnswer(req, s).stream(w, r)
	default:
		newAnswer(req, s).whole(w, r)
	}
}

// results is how many calls have been answered so far.
func (r request) results() (count int) {
	for _, message := range r.Messages {
		if message.Role == "tool" {
			count++
		}
	}
	return count
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"message":%q,"type":"SimulatedError","param":null,"code":%d}}`, message, status)
}

// answer is one completion: the script, and the JSON shared by all of its chunks.
type answer struct {
	script.Script
	head, usage string
	wantsUsage  bool
}

func newAnswer(req request, s script.Script) *answer {
	return begin(req, s, s.Tokens+s.Reasoning)
}

func begin(req request, s script.Script, out int) *answer {
	return &answer{
		Script: s,
		head: fmt.Sprintf(`{"id":"chatcmpl-sim%d","created":%d,"model":%s,`,
			atomic.AddInt64(&answers, 1), time.Now().Unix(), literal(req.Model)),
		usage: fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"completion_tokens_details":{"reasoning_tokens":%d}}`,
			len(req.Messages), out, len(req.Messages)+out, s.Reasoning),
		wantsUsage: req.StreamOptions.IncludeUsage,
	}
}

// whole answers in one piece, after the time its stream would have taken.
func (a *answer) whole(w http.ResponseWriter, r *http.Request) {
	if !wait(r, a.Duration()) {
		return
	}
	reasoning := "null"
	if a.Reasoning > 0 {
		reasoning = literal(script.Text(a.Reasoning))
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `%s"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%s,"reasoning":%s,"tool_calls":[]},"logprobs":null,"finish_reason":"stop"}],"usage":%s}`,
		a.head, literal(script.Text(a.Tokens)), reasoning, a.usage)
}

// stream answers with server-sent events: the role, the tokens, the finish reason, the usage, [DONE].
func (a *answer) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	out := &writer{w: w, flusher: w.(http.Flusher)}
	out.event(a.chunk(`"role":"assistant","content":""`, "null"))
	out.flush()
	if !wait(r, a.First) || !a.streamTokens(out, r) {
		return
	}
	out.event(a.chunk("", `"stop"`))
	if a.wantsUsage {
		out.event(a.head + `"object":"chat.completion.chunk","choices":[],"usage":` + a.usage + "}")
	}
	out.event("[DONE]")
	out.flush()
}

// streamTokens writes thinking and text; false if the answer ends early, by script or because the client left.
func (a *answer) streamTokens(out *writer, r *http.Request) bool {
	prefix, suffix := cut(a.chunk("\x00", "null"))
	total := a.Reasoning + a.Tokens
	for i := 0; i < total; i++ {
		switch i {
		case a.Cut:
			out.flush()
			panic(http.ErrAbortHandler)
		case a.Stall:
			out.flush()
			<-r.Context().Done()
			return false
		case a.Garble:
			out.event(`{"id":"chatcmpl-broken","choices":[{"delta":{"con`)
		}
		if i > 0 && i%a.PerWrite == 0 && !wait(r, a.Pause*time.Duration(a.PerWrite)) {
			return false
		}
		out.event(prefix, a.delta(i), suffix)
		if (i+1)%a.PerWrite == 0 || i+1 == total {
			out.flush()
		}
	}
	return true
}

// delta is the i-th token of the answer, thinking first, as members of a delta object.
func (a *answer) delta(i int) string {
	switch {
	case i < a.Reasoning:
		return `"reasoning":` + literals[i%len(literals)]
	case a.Stamp:
		return `"content":"@` + strconv.FormatInt(time.Now().UnixNano(), 10) + `;"`
	default:
		return `"content":` + literals[(i-a.Reasoning)%len(literals)]
	}
}

func (a *answer) chunk(delta, finish string) string {
	return a.head + `"object":"chat.completion.chunk","choices":[{"index":0,"delta":{` + delta + `},"logprobs":null,"finish_reason":` + finish + `}]}`
}

func cut(template string) (string, string) {
	at := strings.IndexByte(template, 0)
	return template[:at], template[at+1:]
}

// literals is the vocabulary as JSON, encoded once.
var literals = func() (all []string) {
	for _, token := range script.Vocabulary {
		all = append(all, literal(token))
	}
	return all
}()

func literal(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// wait pauses; false if the client has left.
func wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// writer collects whole events and writes them together.
type writer struct {
	w       io.Writer
	flusher http.Flusher
	pending []byte
}

func (o *writer) event(data ...string) {
	o.pending = append(o.pending, "data: "...)
	for _, part := range data {
		o.pending = append(o.pending, part...)
	}
	o.pending = append(o.pending, "\n\n"...)
}

func (o *writer) flush() {
	// A failed write means that the client has left, which the request's context reports.
	_, _ = o.w.Write(o.pending)
	o.flusher.Flush()
	o.pending = o.pending[:0]
}
