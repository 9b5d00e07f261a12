// Generator places orders and awaits their outcomes, or reads them, and prints what it measured as a line of JSON.
//
//	generator -url http://127.0.0.1:8080 -clients 64 -seconds 10     closed loop
//	generator -url http://127.0.0.1:8080 -rate 200 -seconds 10       open loop: latency from the intended send time
//	generator -url http://127.0.0.1:8080 -flood -rate 500 -seconds 5 highest rate with p99 of at most -limit ms, by steps
//	generator -url http://127.0.0.1:8080 -reads 1000 -clients 64     reads of so many orders that it placed
//
// -once asks for the outcome in the POST, one request an order instead of two. -api says whose interface is asked.
// It uses the standard library alone, so that any Go since 1.19 builds it without a network.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"
)

func main() {
	url := flag.String("url", "http://127.0.0.1:8080", "base URLs, comma separated: orders are placed in turn")
	kind := flag.String("api", "orders", "interface: orders or restate")
	clients := flag.Int("clients", 0, "clients of a closed loop")
	rate := flag.Float64("rate", 50, "orders, or reads, a second of an open loop; first rate of a flood")
	seconds := flag.Float64("seconds", 10, "seconds of the run; of a step of a flood")
	connections := flag.Int("connections", 0, "most connections to each server; 0: as many as requests in flight")
	products := flag.Int("products", 2, "products that the orders are spread over")
	once := flag.Bool("once", false, "one request an order: the POST waits for the outcome")
	floods := flag.Bool("flood", false, "look for the highest sustained rate")
	limit := flag.Float64("limit", 250, "p99 in milliseconds that a sustained rate has at most")
	giveUp := flag.Float64("give-up", 5, "end an open loop whose answers come so many seconds late; 0: never")
	readsOf := flag.Int("reads", 0, "read so many orders instead, which are placed first")
	flag.Parse()
	if *products < 1 || *seconds <= 0 || (*clients <= 0 && *rate <= 0) || flag.NArg() > 0 {
		fail("-products, -seconds, and -clients or -rate are positive; there are no other arguments")
	}
	f, err := newFlow(*kind, *url, *products, *connections, *once)
	if err != nil {
		fail(err.Error())
	}
	var do task = func(due time.Time, result *results) { f.order(due, result) }
	mode := ""
	if *readsOf > 0 {
		reading, setup := reads(f, *readsOf)
		if len(setup.errors) > 0 {
			fail(fmt.Sprintf("the orders to read could not be placed: %v", setup.errors))
		}
		do, mode = reading, "reads, "
	}
	before := cpuSeconds()
	var out report
	switch {
	case *floods:
		out = flood(do, *rate, *seconds, *limit)
	case *clients > 0:
		out = closedLoop(do, *clients, *seconds).report(mode+"closed loop", *seconds)
		out.Clients = *clients
	default:
		result, _ := openLoop(do, *rate, *seconds, *giveUp)
		out = result.report(mode+"open loop", *seconds)
		out.Rate = *rate
	}
	out.CPUSeconds = cpuSeconds() - before
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fail(err.Error())
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(2)
}
