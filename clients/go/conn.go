package sorteo

import (
	"bufio"
	"context"
	"errors"
	"net"
	"time"
)

// A conn is one connection to the server. Its sending and its receiving methods may be called at the same time.
type conn struct {
	net          net.Conn
	in           *bufio.Reader
	patience     *patience
	replyTimeout time.Duration
}

// dial connects. Whatever it or the methods of the connection return because the network failed is a *lostError.
func (c *Client) dial(ctx context.Context, p *patience) (*conn, error) {
	dialer := net.Dialer{Deadline: p.until(orDefault(c.ConnectTimeout, defaultConnectTimeout))}
	connection, err := dialer.DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil, &lostError{err}
	}
	result := &conn{net: connection, patience: p, replyTimeout: orDefault(c.ReplyTimeout, defaultReplyTimeout)}
	result.in = bufio.NewReaderSize(silenceLimit{result}, frameHeader+frameBytesMax)
	return result, nil
}

func (c *conn) close() { c.net.Close() }

// send sends whole frames. A reply that is awaited may take its full time from now on.
func (c *conn) send(frames []byte) error {
	deadline := c.patience.until(c.replyTimeout)
	if err := c.net.SetDeadline(deadline); err != nil {
		return &lostError{err}
	}
	if _, err := c.net.Write(frames); err != nil {
		return &lostError{err}
	}
	return nil
}

// receive returns the line of the next reply.
func (c *conn) receive() (string, error) {
	line, err := readFrame(c.in)
	var wrong *ProtocolError
	if err != nil && !errors.As(err, &wrong) {
		return "", &lostError{err}
	}
	return line, err
}

// ask sends one request and returns the line of its reply.
func (c *conn) ask(request string) (string, error) {
	if err := c.send(appendFrame(nil, request)); err != nil {
		return "", err
	}
	return c.receive()
}

// silenceLimit reads from a connection, and fails after the reply timeout without a byte.
type silenceLimit struct{ *conn }

func (s silenceLimit) Read(p []byte) (int, error) {
	if err := s.net.SetReadDeadline(s.patience.until(s.replyTimeout)); err != nil {
		return 0, err
	}
	return s.net.Read(p)
}
