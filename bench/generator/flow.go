package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// customers is the number of customers: enough that none reaches the limit of the fraud check.
const customers = 5000

var validated = []byte("VALIDATED")

// An api says how a system is asked: the request that places an order, the one that awaits its outcome, the one that
// reads it, and the one that places it and awaits the outcome at once.
type api struct {
	placed                        int
	place, await, read, placeWait func(host, id, body string) []byte
}

// apis by the value of -api: our own, which the Kafka Streams peer has as well, and the ingress of Restate.
var apis = map[string]api{
	"orders": {
		placed: 201,
		place: func(host, _, body string) []byte {
			return post(host, "/v1/orders", "", body)
		},
		await: func(host, id, _ string) []byte {
			return get(host, "/v1/orders/"+id+"/validated?timeout=20000")
		},
		read: func(host, id, _ string) []byte {
			return get(host, "/v1/orders/"+id)
		},
		placeWait: func(host, _, body string) []byte {
			return post(host, "/v1/orders", "Prefer: wait=20\r\n", body)
		},
	},
	"restate": {
		placed: 202,
		place: func(host, id, body string) []byte {
			return post(host, "/OrderFlow/"+id+"/run/send", "", body)
		},
		await: func(host, id, _ string) []byte {
			return get(host, "/restate/workflow/OrderFlow/"+id+"/attach")
		},
		read: func(host, id, _ string) []byte {
			return get(host, "/restate/workflow/OrderFlow/"+id+"/output")
		},
		placeWait: func(host, id, body string) []byte {
			return post(host, "/OrderFlow/"+id+"/run", "", body)
		},
	},
}

func get(host, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nAccept: application/json\r\n\r\n")
}

func post(host, path, headers, body string) []byte {
	return []byte("POST " + path + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n" + headers +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

// A flow runs single orders against one or more servers of a system, and notes what came of them.
type flow struct {
	api      api
	servers  []*pool
	products int
	once     bool // one request an order
	prefix   string
	turn     int64
}

func newFlow(kind string, urls string, products, connections int, once bool) (*flow, error) {
	known, ok := apis[kind]
	if !ok {
		return nil, fmt.Errorf("-api is orders or restate, not %q", kind)
	}
	f := &flow{api: known, products: products, once: once}
	f.prefix = fmt.Sprintf("%s-%s", strconv.FormatInt(time.Now().UnixNano(), 36), strconv.FormatInt(int64(os.Getpid()), 36))
	for _, url := range strings.Split(urls, ",") {
		if !strings.HasPrefix(url, "http://") {
			return nil, fmt.Errorf("-url is http://HOST:PORT, not %q", url)
		}
		address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
		f.servers = append(f.servers, newPool(address, connections))
	}
	return f, nil
}

// order places one order and awaits its outcome. Latencies count from due. It returns the id of the order.
func (f *flow) order(due time.Time, result *results) string {
	n := atomic.AddInt64(&f.turn, 1)
	server := f.servers[int(n)%len(f.servers)]
	id := f.prefix + "-" + strconv.FormatInt(n, 10)
	body := fmt.Sprintf(`{"id":"%s","customerId":%d,"product":"product-%d","quantity":1,"price":1}`,
		id, rand.Intn(customers)+1, int(n)%f.products)
	if f.once {
		status, answer, err := server.do(f.api.placeWait(server.address, id, body))
		if err != nil {
			result.fail(err.Error())
		} else if status/100 != 2 || status == 202 || !bytes.Contains(answer, validated) {
			result.fail(fmt.Sprintf("POST and wait %d", status))
		} else {
			result.add(due, time.Since(due), time.Since(due))
		}
		return id
	}
	status, _, err := server.do(f.api.place(server.address, id, body))
	if err != nil {
		result.fail(err.Error())
		return id
	}
	if status != f.api.placed {
		result.fail(fmt.Sprintf("POST %d", status))
		return id
	}
	posted := time.Since(due)
	status, answer, err := server.do(f.api.await(server.address, id, body))
	if err != nil {
		result.fail(err.Error())
	} else if status != 200 || !bytes.Contains(answer, validated) {
		result.fail(fmt.Sprintf("GET outcome %d", status))
	} else {
		result.add(due, posted, time.Since(due))
	}
	return id
}

// read reads a known order.
func (f *flow) read(id string, due time.Time, result *results) {
	server := f.servers[rand.Intn(len(f.servers))]
	status, answer, err := server.do(f.api.read(server.address, id, ""))
	if err != nil {
		result.fail(err.Error())
	} else if status != 200 || !bytes.Contains(answer, validated) {
		result.fail(fmt.Sprintf("GET %d", status))
	} else {
		result.add(due, time.Since(due), time.Since(due))
	}
}
