package main

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestASessionHasItsItemsItsSizeAndItsFunctions(t *testing.T) {
	for _, s := range []session{{items: 300, bytes: 400_000}, {items: 600, bytes: 1_800_000}} {
		asked := target{url: "http://127.0.0.1/v1/responses", model: "sim-t50", session: s}
		if err := asked.prepare(1); err != nil {
			t.Fatal(err)
		}
		body := asked.body(1, "")
		var request struct{ Input, Tools []json.RawMessage }
		if err := json.Unmarshal(body, &request); err != nil {
			t.Fatal(err)
		}
		near(t, "items", len(request.Input), s.items, 0)
		near(t, "functions", len(request.Tools), functions, 0)
		near(t, "bytes of the functions", len(encoded(request.Tools)), schemaBytes, schemaBytes/10)
		near(t, "bytes", len(body), s.bytes+schemaBytes, s.bytes/20)
		if rare := utf8.RuneCount(body); rare == len(body) || rare < len(body)*98/100 {
			t.Errorf("%d characters in %d bytes: want a little Chinese", rare, len(body))
		}
		if got := asked.messages(1); got != asked.session.messages || got == 0 || got > s.items {
			t.Errorf("a model is given %d messages", got)
		}
	}
}

func TestTextsInPartsSayTheSame(t *testing.T) {
	asked := target{url: "http://127.0.0.1/v1/responses", model: "sim-t50", parts: true}
	if err := asked.prepare(1); err != nil {
		t.Fatal(err)
	}
	var request struct {
		Input []struct {
			Role    string
			Content []struct{ Type, Text string }
		}
	}
	if err := json.Unmarshal(asked.body(50, ""), &request); err != nil {
		t.Fatal(err)
	}
	near(t, "messages", len(request.Input), asked.messages(50), 0)
	for _, one := range request.Input {
		kind := map[string]string{"user": "input_text", "assistant": "output_text"}[one.Role]
		if len(one.Content) != 1 || one.Content[0].Type != kind || one.Content[0].Text == "" {
			t.Fatalf("%v says %v", one.Role, one.Content)
		}
	}
}

func near(t *testing.T, what string, got, want, off int) {
	t.Helper()
	if got < want-off || got > want+off {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}
