package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// timeout bounds each request.
const timeout = 30 * time.Second

// A connection is one kept-alive HTTP/1.1 connection. It writes and reads in the goroutine of its user: the transport of
// net/http hands each request through three goroutines, which costs more than most servers need to answer it.
type connection struct {
	net.Conn
	reader *bufio.Reader
	body   bytes.Buffer
}

// A pool lends connections to one server, the last returned first. Who finds all lent waits, unless there is no limit.
type pool struct {
	address string
	lent    chan struct{} // holds one for each lent connection, up to the limit; nil: no limit
	mutex   sync.Mutex
	idle    []*connection
}

func newPool(address string, limit int) *pool {
	p := &pool{address: address}
	if limit > 0 {
		p.lent = make(chan struct{}, limit)
	}
	return p
}

func (p *pool) borrow() (*connection, error) {
	if p.lent != nil {
		p.lent <- struct{}{}
	}
	c, err := p.take()
	if err != nil {
		p.release()
	}
	return c, err
}

func (p *pool) take() (*connection, error) {
	p.mutex.Lock()
	if last := len(p.idle) - 1; last >= 0 {
		c := p.idle[last]
		p.idle = p.idle[:last]
		p.mutex.Unlock()
		return c, nil
	}
	p.mutex.Unlock()
	raw, err := net.DialTimeout("tcp", p.address, timeout)
	if err != nil {
		time.Sleep(50 * time.Millisecond) // a closed loop would otherwise try again at once, with all that it has
		return nil, err
	}
	return &connection{Conn: raw, reader: bufio.NewReaderSize(raw, 4096)}, nil
}

func (p *pool) giveBack(c *connection) {
	p.mutex.Lock()
	p.idle = append(p.idle, c)
	p.mutex.Unlock()
	p.release()
}

func (p *pool) drop(c *connection) {
	c.Close()
	p.release()
}

func (p *pool) release() {
	if p.lent != nil {
		<-p.lent
	}
}

// do sends a request and returns the status and the body of the answer. The body is copied: it stays valid.
func (p *pool) do(request []byte) (int, []byte, error) {
	c, err := p.borrow()
	if err != nil {
		return 0, nil, err
	}
	status, body, keep, err := c.exchange(request)
	if err != nil || !keep {
		p.drop(c)
	} else {
		p.giveBack(c)
	}
	return status, body, err
}

func (c *connection) exchange(request []byte) (int, []byte, bool, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, nil, false, err
	}
	if _, err := c.Write(request); err != nil {
		return 0, nil, false, err
	}
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, nil, false, err
	}
	c.body.Reset()
	_, err = io.Copy(&c.body, answer.Body)
	answer.Body.Close()
	return answer.StatusCode, append([]byte(nil), c.body.Bytes()...), !answer.Close, err
}
