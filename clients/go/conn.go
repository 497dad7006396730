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

	tls         *TLS
	token       string // as it was read for this connection
	unsent      []byte // AUTH, which goes with the first request
	awaitsReply bool   // to AUTH
}

// dial connects. Whatever it or the methods of the connection return because the network failed is a *lostError.
func (c *Client) dial(ctx context.Context, p *patience) (*conn, error) {
	result := &conn{patience: p, replyTimeout: orDefault(c.ReplyTimeout, defaultReplyTimeout), tls: c.TLS}
	if err := result.authenticate(c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, p.until(orDefault(c.ConnectTimeout, defaultConnectTimeout)))
	defer cancel()
	var err error
	if result.net, err = c.TLS.dial(ctx, c.Address); err != nil {
		return nil, err
	}
	result.in = bufio.NewReaderSize(silenceLimit{result}, frameHeader+frameBytesMax)
	return result, nil
}

// authenticate reads the token, if the client has one, and makes it the first request.
func (c *conn) authenticate(client *Client) (err error) {
	if client.TokenFile == "" {
		return nil
	}
	if c.token, err = readToken(client.TokenFile); err != nil {
		return err
	}
	c.unsent = appendFrame(nil, authRequest(client.Agency, c.token))
	c.awaitsReply = true
	return nil
}

func (c *conn) close() { c.net.Close() }

// send sends whole frames. A reply that is awaited may take its full time from now on.
func (c *conn) send(frames []byte) error {
	deadline := c.patience.until(c.replyTimeout)
	if err := c.net.SetDeadline(deadline); err != nil {
		return &lostError{err}
	}
	if c.unsent != nil {
		frames, c.unsent = append(c.unsent, frames...), nil
	}
	if _, err := c.net.Write(frames); err != nil {
		return &lostError{err}
	}
	return nil
}

// receive returns the line of the next reply. The reply to AUTH is not one of them, unless it is a refusal.
func (c *conn) receive() (string, error) {
	if c.awaitsReply {
		c.awaitsReply = false
		line, err := c.receiveLine()
		if err == nil {
			err = decodeAuth(line)
		}
		if err != nil {
			return "", err
		}
	}
	return c.receiveLine()
}

func (c *conn) receiveLine() (string, error) {
	line, err := readFrame(c.in)
	var wrong *ProtocolError
	if refused := c.tls.refusal(err); refused != nil {
		return "", refused
	}
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
