package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"responses-gateway/benchmarks/script"
)

// call is a turn that calls the tool web_search; it counts as one token.
type call struct {
	*answer
	arguments string
}

var queries int64 // numbers the queries, so that none is cached

func newCall(req request, s script.Script) call {
	arguments := `{"queries": []}`
	if !s.Void {
		number := int64(0)
		if !s.Same {
			number = atomic.AddInt64(&queries, 1)
		}
		arguments = fmt.Sprintf(`{"queries": ["route %d of a token in %d ms"]}`, number, s.Search.Milliseconds())
	}
	return call{begin(req, s, 1), arguments}
}

func (c call) write(w http.ResponseWriter, stream bool) {
	id := "call_" + strconv.FormatInt(atomic.AddInt64(&answers, 1), 10)
	if !stream {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `%s"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":%q,"type":"function","function":{"name":"web_search","arguments":%s}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":%s}`,
			c.head, id, literal(c.arguments), c.usage)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	out := &writer{w: w, flusher: w.(http.Flusher)}
	out.event(c.chunk(`"role":"assistant","content":""`, "null"))
	out.flush()
	out.event(c.chunk(fmt.Sprintf(`"tool_calls":[{"index":0,"id":%q,"type":"function","function":{"name":"web_search","arguments":""}}]`, id), "null"))
	for _, token := range strings.SplitAfter(c.arguments, " ") {
		out.event(c.chunk(`"tool_calls":[{"index":0,"function":{"arguments":`+literal(token)+`}}]`, "null"))
	}
	out.event(c.chunk("", `"tool_calls"`))
	if c.wantsUsage {
		out.event(c.head + `"object":"chat.completion.chunk","choices":[],"usage":` + c.usage + "}")
	}
	out.event("[DONE]")
	out.flush()
}

// search answers like SearXNG, with ten results.
func search(w http.ResponseWriter, r *http.Request) {
	var number, pause int64
	if _, err := fmt.Sscanf(r.URL.Query().Get("q"), "route %d of a token in %d ms", &number, &pause); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if !wait(r, time.Duration(pause)*time.Millisecond) {
		return
	}
	results := make([]string, 10)
	for i := range results {
		results[i] = fmt.Sprintf(`{"url":"https://pages.example/%d/%d","title":"Route %d, part %d","content":%s,"engine":"sim","engines":["sim"],"positions":[%d],"template":"default.html","parsed_url":["https","pages.example","/%d/%d","","",""],"score":%.2f,"category":"general","publishedDate":null}`,
			number, i, number, i, excerpt, i+1, number, i, 1/float64(i+1))
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"query":"","number_of_results":10,"results":[`+strings.Join(results, ",")+`],"answers":[],"corrections":[],"infoboxes":[],"suggestions":[],"unresponsive_engines":[]}`)
}

var excerpt = literal(script.Text(60))
