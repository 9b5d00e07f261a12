package main

import (
	"math/rand"
	"sync"
	"sync/atomic"
	"time"
)

// mostInFlight bounds the requests in flight of an open loop. Beyond it requests are sent late; latency still counts
// from the intended time.
const mostInFlight = 8192

// A task is one order, or one read.
type task func(due time.Time, result *results)

// closedLoop lets clients run tasks one after another.
func closedLoop(do task, clients int, seconds float64) *results {
	result := newResults(time.Now(), seconds)
	var all sync.WaitGroup
	for n := 0; n < clients; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for now := time.Now(); now.Before(result.end); now = time.Now() {
				do(now, result)
			}
		}()
	}
	all.Wait()
	return result
}

// openLoop starts tasks at a steady rate, whatever comes of them. It gives up, and returns false, once the last task is
// so many seconds late (0: never).
func openLoop(do task, rate, seconds, giveUp float64) (*results, bool) {
	result := newResults(time.Now(), seconds)
	slots := make(chan struct{}, mostInFlight)
	var all sync.WaitGroup
	var oldest int64 // lag of the last task that ended, in nanoseconds
	kept := true
	for n := 0; n < int(rate*seconds); n++ {
		due := result.start.Add(time.Duration(float64(n) / rate * 1e9))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		lag := time.Duration(atomic.LoadInt64(&oldest))
		if giveUp > 0 && (time.Since(due).Seconds() > giveUp || lag.Seconds() > giveUp) {
			kept, result.gaveUp = false, true
			break
		}
		slots <- struct{}{}
		all.Add(1)
		go func() {
			defer all.Done()
			do(due, result)
			atomic.StoreInt64(&oldest, int64(time.Since(due)))
			<-slots
		}()
	}
	all.Wait()
	return result, kept
}

// flood looks for the highest rate that is sustained: each request succeeds, and p99 is at most limit milliseconds.
// It multiplies the rate while that holds, then halves the interval between the highest sustained rate and the lowest
// that was not until they differ by less than a tenth.
func flood(do task, rate, seconds, limit float64) report {
	var steps []step
	var best report
	low, high := 0.0, 0.0
	for len(steps) < 16 && (low == 0 || high == 0 || high > 1.1*low) {
		result, kept := openLoop(do, rate, seconds, 2)
		tried := result.report("flood", seconds)
		sustained := kept && len(tried.Errors) == 0 && tried.Ok > 0 && tried.ValidatedP99 <= limit
		steps = append(steps, step{round(rate), tried.PerSecond, tried.ValidatedP99, sustained})
		if sustained {
			low, best = rate, tried
			best.Rate = round(rate)
		} else {
			high = rate
			time.Sleep(time.Second) // what was left behind is processed
		}
		switch {
		case high == 0:
			rate = 1.5 * low
		case low == 0:
			rate = high / 2
		default:
			rate = (low + high) / 2
		}
		if rate < 1 {
			break
		}
	}
	best.Mode, best.Steps, best.PerSecond = "flood", steps, round(low)
	if best.Errors == nil {
		best.Errors = map[string]int{}
	}
	return best
}

// reads returns a task that reads one of so many orders, which it first places.
func reads(f *flow, orders int) (task, *results) {
	setup := newResults(time.Now(), 60)
	ids := make([]string, orders)
	var next int64 = -1
	var all sync.WaitGroup
	for n := 0; n < 32; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := atomic.AddInt64(&next, 1); i < int64(orders); i = atomic.AddInt64(&next, 1) {
				ids[i] = f.order(time.Now(), setup)
			}
		}()
	}
	all.Wait()
	return func(due time.Time, result *results) { f.read(ids[rand.Intn(orders)], due, result) }, setup
}
