package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// object is an unencoded JSON object.
type object = map[string]any

// session is a coding agent's request late in its work: a number of items (questions, text, calls and their outputs) with a total size,
// texts as content parts, and the schemas of its functions.
type session struct {
	items, bytes int
	messages     int // that the model gets
}

const (
	functions   = 24
	schemaBytes = 60_000
	// Intervals: the user's messages in items; the model's text before a call, and outputs in Chinese, in steps.
	questionEvery, wordsEvery, chineseEvery = 25, 4, 9
)

var (
	sourceLine  = "    return self._send(connection, \"request\", timeout=30)  # one write a request\n"
	chineseLine = "    raise ValueError(f\"{name}: 模型没有返回结果，请稍后再试\")\n"
)

// fill adds the session to a request's body.
func (s session) fill(request object, chat bool) {
	history := s.history(chat, 0)
	missing := s.bytes - len(encoded(history))
	if outputs := count(history, chat); outputs > 0 && missing > 0 {
		history = s.history(chat, missing/outputs)
	}
	var tools []object
	for i := 0; i < functions; i++ {
		tools = append(tools, function(i, chat))
	}
	request["tools"] = tools
	if chat {
		request["messages"] = history
	} else {
		request["input"] = history
	}
}

// history is the session's items, with outputs of about so many bytes.
func (s session) history(chat bool, output int) (all []object) {
	steps := 0
	for made := 0; made < s.items; {
		if made%questionEvery == 0 || s.items-made == 1 {
			all = append(all, said("user", prompt, chat))
			made++
			continue
		}
		words := ""
		if steps%wordsEvery == 0 && s.items-made > 2 {
			words = "I look at the \"next\" file.\n"
			made++
		}
		all = append(all, step(steps, words, result(steps, output), chat)...)
		made += 2
		steps++
	}
	return all
}

// step is a call and its output, perhaps with text before it.
func step(number int, words, output string, chat bool) []object {
	id := fmt.Sprintf("call_%032x", number)
	name := fmt.Sprintf("tool_%d", number%functions)
	arguments := fmt.Sprintf(`{"command":["bash","-lc","sed -n '1,200p' app/part_%d.py"],"workdir":"/src"}`, number)
	if chat {
		call := object{"id": id, "type": "function", "function": object{"name": name, "arguments": arguments}}
		return []object{
			{"role": "assistant", "content": words, "tool_calls": []object{call}},
			{"role": "tool", "tool_call_id": id, "content": output},
		}
	}
	items := []object{
		{"type": "function_call", "call_id": id, "name": name, "arguments": arguments, "status": "completed"},
		{"type": "function_call_output", "call_id": id, "output": output},
	}
	if words == "" {
		return items
	}
	return append([]object{said("assistant", words, chat)}, items...)
}

// said is a message in content parts, as sent by SDKs and agents.
func said(role, text string, chat bool) object {
	kind := "input_text"
	switch {
	case chat:
		return object{"role": role, "content": []object{{"type": "text", "text": text}}}
	case role == "assistant":
		kind = "output_text"
	}
	return object{"type": "message", "role": role, "content": []object{{"type": kind, "text": text}}}
}

// result is source text of about so many bytes as JSON.
func result(number, bytes int) string {
	text := strings.Repeat(sourceLine, bytes/(len(encoded(sourceLine))-len(`""`)))
	if number%chineseEvery == 0 {
		return chineseLine + text
	}
	return text
}

func count(history []object, chat bool) (outputs int) {
	for _, one := range history {
		if one["type"] == "function_call_output" || chat && one["role"] == "tool" {
			outputs++
		}
	}
	return outputs
}

func function(number int, chat bool) object {
	properties := object{}
	size := 0
	for i := 0; size < schemaBytes/functions-500; i++ {
		property := object{"type": "string", "description": fmt.Sprintf("Part %d of what the tool shall work on; relative paths start at the root.", i)}
		properties[fmt.Sprintf("part_%d", i)] = property
		size += len(encoded(property))
	}
	made := object{
		"name": fmt.Sprintf("tool_%d", number), "description": "Works on files of the project and says what it found.",
		"parameters": object{"type": "object", "properties": properties, "required": []string{"part_0"}, "additionalProperties": false},
	}
	if chat {
		return object{"type": "function", "function": made}
	}
	made["type"], made["strict"] = "function", false
	return made
}

func encoded(value any) []byte {
	made, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return made
}
