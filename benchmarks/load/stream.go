package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// reader follows one stream.
type reader struct {
	*target
	*answer
	begin     time.Time
	text      []byte // the inside of a JSON string, joined
	lastStamp int64
	events    int
	final     final
	ended     bool
	resumed   bool // it begins after the first deltas
}

func (r *reader) read(body io.Reader) (final, error) {
	event := r.responseEvent
	if r.chat {
		event = r.chatEvent
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 16<<10), 16<<20)
	for lines.Scan() {
		data, ok := cutPrefix(lines.Bytes(), "data:")
		if !ok {
			continue
		}
		data = bytes.TrimSpace(data)
		if !json.Valid(data) && string(data) != "[DONE]" {
			return r.final, fmt.Errorf("event %d is not JSON", r.events)
		}
		if err := event(data); err != nil {
			return r.final, err
		}
		r.events++
	}
	if err := lines.Err(); err != nil {
		return r.final, err
	}
	if !r.ended {
		return r.final, errors.New("the stream broke off")
	}
	return r.final, r.join()
}

// join checks that the deltas match the final object.
func (r *reader) join() error {
	var joined string
	if err := json.Unmarshal([]byte(`"`+string(r.text)+`"`), &joined); err != nil {
		return fmt.Errorf("the deltas are no JSON text: %w", err)
	}
	if r.chat {
		r.final.text = joined
	} else if r.resumed && !strings.HasSuffix(r.final.text, joined) || !r.resumed && r.final.text != joined {
		return fmt.Errorf("the final text has %d bytes, its deltas %d", len(r.final.text), len(joined))
	}
	return nil
}

func (r *reader) responseEvent(data []byte) error {
	if r.strict {
		number, _ := after(data, `"sequence_number":`)
		if end := bytes.IndexAny(number, ",} "); end < 0 || string(number[:end]) != strconv.Itoa(r.events) {
			return fmt.Errorf("sequence_number of event %d is wrong", r.events)
		}
	}
	switch {
	case r.events == 0 && !bytes.Contains(data, []byte(`"response.created"`)):
		return errors.New("the first event is not response.created")
	case bytes.Contains(data, []byte(`"response.output_text.delta"`)):
		return r.delta(data, `"delta":`)
	case bytes.Contains(data, []byte(`"response.completed"`)):
		var e struct {
			Response json.RawMessage `json:"response"`
		}
		err := json.Unmarshal(data, &e)
		if err == nil {
			r.ended = true
			r.final, err = r.parseResponse(e.Response)
		}
		return err
	}
	return nil
}

func (r *reader) chatEvent(data []byte) error {
	switch {
	case string(data) == "[DONE]":
		r.ended = true
	case bytes.Contains(data, []byte(`"choices":[]`)):
		f, err := parseCompletion(data)
		r.final.input, r.final.output = f.input, f.output
		return err
	case bytes.Contains(data, []byte(`"finish_reason":"stop"`)):
		r.final.status = "completed"
	default:
		return r.delta(data, `"content":`)
	}
	return nil
}

// delta appends the string after the key, if there is one.
func (r *reader) delta(data []byte, key string) error {
	value, _ := after(data, key)
	inside := insideString(value)
	if len(inside) == 0 {
		return nil
	}
	now := time.Now()
	if len(r.text) == 0 {
		r.first = now.Sub(r.begin)
	}
	r.text = append(r.text, inside...)
	if r.script.Stamp {
		return r.stamps(inside, now)
	}
	return nil
}

// stamps reads "@<Unix ns>;" tokens, of which a delta can contain several.
func (r *reader) stamps(text []byte, now time.Time) error {
	for len(text) > 0 {
		end := bytes.IndexByte(text, ';')
		if end < 1 || text[0] != '@' {
			return fmt.Errorf("not a stamped token: %q", text)
		}
		sent, err := strconv.ParseInt(string(text[1:end]), 10, 64)
		if err != nil {
			return err
		}
		if sent < r.lastStamp {
			return errors.New("tokens are out of order")
		}
		r.lastStamp = sent
		r.delays = append(r.delays, time.Duration(now.UnixNano()-sent))
		text = text[end+1:]
	}
	return nil
}

func cutPrefix(line []byte, prefix string) ([]byte, bool) {
	return bytes.TrimPrefix(line, []byte(prefix)), bytes.HasPrefix(line, []byte(prefix))
}

// after returns what follows the key in a JSON object, without white space. Quotes in strings are escaped, so a key is never found in one.
func after(data []byte, key string) ([]byte, bool) {
	at := bytes.Index(data, []byte(key))
	if at < 0 {
		return nil, false
	}
	return bytes.TrimLeft(data[at+len(key):], " "), true
}

// insideString returns the contents of the JSON string at the beginning of value.
func insideString(value []byte) []byte {
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	for i := 1; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case '"':
			return value[1:i]
		}
	}
	return nil
}
