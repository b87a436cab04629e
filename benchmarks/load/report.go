package main

import (
	"math"
	"sort"
	"time"
)

// report is the output of load. Times are milliseconds; percentiles are of correct answers only.
type report struct {
	Asked   int            `json:"asked"`
	OK      int            `json:"ok"`
	Errors  map[string]int `json:"errors"`
	Tokens  int            `json:"tokens"`
	Seconds float64        `json:"seconds"`
	RPS     float64        `json:"rps"`
	Total   *percentiles   `json:"total_ms,omitempty"`
	First   *percentiles   `json:"first_ms,omitempty"`
	Delay   *percentiles   `json:"delay_ms,omitempty"`
}

type percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func summarise(answers []answer, took time.Duration) report {
	r := report{Asked: len(answers), Errors: map[string]int{}, Seconds: took.Seconds()}
	var total, first, delays []time.Duration
	for _, a := range answers {
		if a.err != nil {
			r.Errors[a.err.Error()]++
			continue
		}
		r.OK++
		r.Tokens += a.tokens
		total, first, delays = append(total, a.total), append(first, a.first), append(delays, a.delays...)
	}
	r.RPS = float64(r.OK) / r.Seconds
	r.Total, r.First, r.Delay = spread(total), spread(first), spread(delays)
	return r
}

// spread takes nearest-rank percentiles; nil without values.
func spread(values []time.Duration) *percentiles {
	if len(values) == 0 {
		return nil
	}
	sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
	at := func(share float64) float64 {
		rank := int(math.Ceil(share*float64(len(values)))) - 1
		return float64(values[rank]) / float64(time.Millisecond)
	}
	return &percentiles{at(.5), at(.9), at(.99), at(1)}
}
