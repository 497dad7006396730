package sorteo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Client acts for one agency at one server. Address and Agency are needed; the other fields have useful zero values.
// A Client must not be changed once it is used. Its methods can be called from several goroutines at the same time.
type Client struct {
	Address string // HOST:PORT
	Agency  uint32

	BatchRows      int           // rows in a batch, up to 1000; 0 means 500
	ConnectTimeout time.Duration // 0 means 5 s
	ReplyTimeout   time.Duration // silence while a reply is awaited; 0 means 30 s
	GiveUpAfter    time.Duration // without progress; 0 means 10 min

	TokenFile string // of the agency's token, read anew at each connect; empty for none
	TLS       *TLS   // nil for plain text

	Observer Observer
}

// An Observer is told what a client is doing. Its functions may be nil. They are called by the goroutine that called
// the client, which waits for them.
type Observer struct {
	// Stored is called when more rows of an upload are known to be stored.
	Stored func(rows, total int64)
	// Retrying is called before a pause and another attempt, with the reason.
	Retrying func(err error, pause time.Duration)
	// Waiting is called each time that the server says that the draw has not taken place yet.
	Waiting func()
}

// persist calls attempt with one connection after the other, until it succeeds, fails for a reason that will not go
// away, or makes no progress for too long. Attempts report progress to the patience of their connection.
func (c *Client) persist(ctx context.Context, attempt func(context.Context, *conn) error) error {
	p := newPatience(orDefault(c.GiveUpAfter, defaultGiveUpAfter))
	for {
		err := c.try(ctx, p, attempt)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !temporary(err):
			return err
		}
		reason := reasonOf(err)
		if p.hopeless(reason) {
			return err
		}
		pause := p.next(reason)
		if c.Observer.Retrying != nil {
			c.Observer.Retrying(err, pause)
		}
		sleep(ctx, pause)
		if p.exhausted() {
			return &UnreachableError{Address: c.Address, After: p.limit, Err: err}
		}
	}
}

// try makes one attempt. The end of the context closes the connection, which ends whatever the attempt waits for.
func (c *Client) try(ctx context.Context, p *patience, attempt func(context.Context, *conn) error) error {
	connection, err := c.dial(ctx, p)
	if err != nil {
		return err
	}
	finished, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
		case <-finished:
		}
		connection.close()
	}()
	defer func() {
		close(finished)
		<-watched
	}()
	err = attempt(ctx, connection)
	if errors.Is(err, ErrUnauthorized) && c.TokenFile != "" {
		token, unreadable := readToken(c.TokenFile)
		switch {
		case unreadable != nil:
			return unreadable
		case token != connection.token:
			return &lostError{fmt.Errorf("the token was replaced: %w", err)}
		}
	}
	return err
}

// temporary tells whether another attempt can succeed.
func temporary(err error) bool {
	var lost *lostError
	return errors.As(err, &lost) || reasonOf(err).temporary()
}

// reasonOf returns the reason of a refusal, or an empty one.
func reasonOf(err error) Reason {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ""
}

func orDefault(setting, otherwise time.Duration) time.Duration {
	if setting == 0 {
		return otherwise
	}
	return setting
}
