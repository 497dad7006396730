package sorteo

import (
	"context"
	"fmt"
)

// Status is the state of the newest draw.
type Status struct {
	Draw     int64 // its number
	Drawn    bool  // or still open for bets
	Done     int64 // agencies that are done, of those that are expected
	Expected int64 // agencies that must be done before the draw
	Bets     int64 // stored, from all agencies
}

// Status asks for the state of the newest draw, after making sure that the server can do what this client needs. A
// server that cannot is a *ProtocolError.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var status Status
	err := c.persist(ctx, func(_ context.Context, connection *conn) (err error) {
		status, err = greet(connection)
		return err
	})
	return status, err
}

// greet sends both requests at once, to wait for the server only once.
func greet(connection *conn) (Status, error) {
	if err := connection.send(appendFrame(appendFrame(nil, helloRequest), statusRequest)); err != nil {
		return Status{}, err
	}
	line, err := connection.receive()
	if err != nil {
		return Status{}, err
	}
	if err := checkHello(line); err != nil {
		return Status{}, err
	}
	if line, err = connection.receive(); err != nil {
		return Status{}, err
	}
	return decodeStatus(line)
}

func checkHello(line string) error {
	version, words, err := decodeHello(line)
	if reasonOf(err) == ReasonUnknown {
		return protocolError("the server does not know HELLO; it is too old for this client", line)
	}
	if err != nil {
		return err
	}
	if version != protocolNumber {
		return protocolError(fmt.Sprintf("the server has version %d of the protocol, this client %d", version, protocolNumber), line)
	}
	known := make(map[string]bool)
	for _, word := range words {
		known[word] = true
	}
	for _, word := range []string{"uploads", "draws", "pages", "waits"} {
		if !known[word] {
			return protocolError("the server lacks "+word, line)
		}
	}
	return nil
}
