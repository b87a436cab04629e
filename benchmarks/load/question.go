package main

import (
	"net/http"
	"strings"

	"responses-gateway/benchmarks/script"
)

// target is the server, the model, and the kind of request.
type target struct {
	url, key, model       string
	chat                  bool
	stream, store, strict bool
	background            bool
	parts                 bool    // texts as content parts
	session               session // instead of a question
	script                script.Script
	client                *http.Client
}

// prompt is about 600 bytes; with an answer of 50 tokens a turn has about 800 bytes, so 50 turns have 40 KB.
var prompt = strings.Repeat("Tell me \"once more\" how a token travels from the model to me.\n", 10)

// body is the request of the given turn (from 1): continuing the previous response, or, with no
// response given, the whole conversation.
func (t *target) body(turn int, previous string) []byte {
	request := object{"model": t.model}
	switch {
	case t.session.items > 0:
		t.session.fill(request, t.chat)
	case t.chat:
		request["messages"] = t.conversation(turn)
	case turn == 1 || previous != "":
		request["input"] = prompt
	default:
		request["input"] = t.conversation(turn)
	}
	if previous != "" {
		request["previous_response_id"] = previous
	}
	if !t.chat && t.script.Calls >= 0 {
		request["tools"] = []map[string]string{{"type": "web_search"}}
	}
	if t.stream {
		request["stream"] = true
	}
	if t.stream && t.chat {
		request["stream_options"] = map[string]bool{"include_usage": true}
	}
	if t.background {
		request["background"] = true
	}
	if !t.store {
		request["store"] = false
	}
	return encoded(request)
}

func (t *target) conversation(turn int) (messages []object) {
	say := plain
	if t.parts {
		say = said
	}
	reply := script.Text(t.script.Tokens)
	for i := 1; i < turn; i++ {
		messages = append(messages, say("user", prompt, t.chat), say("assistant", reply, t.chat))
	}
	return append(messages, say("user", prompt, t.chat))
}

func plain(role, text string, _ bool) object {
	return object{"role": role, "content": text}
}
