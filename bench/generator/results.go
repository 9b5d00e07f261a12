package main

import (
	"math"
	"sort"
	"strings"
	"sync"
	"time"
)

// results collects what came of the requests of one run. Latencies are in milliseconds.
type results struct {
	mutex    sync.Mutex
	start    time.Time
	end      time.Time // of the run: what is answered later does not count for the rate
	inTime   int
	gaveUp   bool      // because the server fell behind
	first    []float64 // of the first request of an order: POST
	complete []float64 // POST to VALIDATED, or the one request there is
	errors   map[string]int
}

func newResults(start time.Time, seconds float64) *results {
	return &results{start: start, end: start.Add(time.Duration(seconds * 1e9)), errors: map[string]int{}}
}

func (r *results) add(due time.Time, first, complete time.Duration) {
	r.mutex.Lock()
	r.first = append(r.first, milliseconds(first))
	r.complete = append(r.complete, milliseconds(complete))
	if !due.Add(complete).After(r.end) {
		r.inTime++
	}
	r.mutex.Unlock()
}

func (r *results) fail(reason string) {
	for _, short := range []string{"refused", "reset", "timeout", "EOF", "broken pipe"} {
		if strings.Contains(reason, short) {
			reason = short
		}
	}
	r.mutex.Lock()
	r.errors[reason]++
	r.mutex.Unlock()
}

// report is one line of the output, with the names that bench/load.py uses as well.
type report struct {
	Mode         string         `json:"mode"`
	Clients      int            `json:"clients"`
	Rate         float64        `json:"rate"`
	Seconds      float64        `json:"seconds"`
	Ok           int            `json:"ok"`
	PerSecond    float64        `json:"per_second"`
	PostP50      float64        `json:"post_p50"`
	PostP99      float64        `json:"post_p99"`
	ValidatedP50 float64        `json:"validated_p50"`
	ValidatedP90 float64        `json:"validated_p90"`
	ValidatedP99 float64        `json:"validated_p99"`
	ValidatedMax float64        `json:"validated_max"`
	Errors       map[string]int `json:"errors"`
	GaveUp       bool           `json:"gave_up,omitempty"`
	Steps        []step         `json:"steps,omitempty"`
	CPUSeconds   float64        `json:"generator_cpu_s"`
}

// A step is one rate that a flood tried.
type step struct {
	Rate      float64 `json:"rate"`
	PerSecond float64 `json:"per_second"`
	P99       float64 `json:"p99"`
	Sustained bool    `json:"sustained"`
}

func (r *results) report(mode string, seconds float64) report {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	sort.Float64s(r.first)
	sort.Float64s(r.complete)
	return report{
		Mode: mode, Seconds: seconds, Ok: len(r.complete), Errors: r.errors, GaveUp: r.gaveUp,
		PerSecond: round(float64(r.inTime) / seconds),
		PostP50:   percentile(r.first, 0.5), PostP99: percentile(r.first, 0.99),
		ValidatedP50: percentile(r.complete, 0.5), ValidatedP90: percentile(r.complete, 0.9),
		ValidatedP99: percentile(r.complete, 0.99), ValidatedMax: percentile(r.complete, 1),
	}
}

// percentile returns a share of sorted values; -1 if there are none.
func percentile(sorted []float64, share float64) float64 {
	if len(sorted) == 0 {
		return -1
	}
	at := int(share * float64(len(sorted)))
	if at >= len(sorted) {
		at = len(sorted) - 1
	}
	return round(sorted[at])
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

func round(x float64) float64 { return math.Round(10*x) / 10 }
