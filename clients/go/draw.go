package sorteo

import "context"

// A Draw is one draw of the server, and what the agency does in it. All of it names the draw, so that nothing falls
// into the next one.
type Draw struct {
	Number int64
	client *Client
}

// NewestDraw asks the server for its newest draw. Remember its number to continue in the same draw after a restart of
// the program, with Client.Draw: by then, another one may be the newest.
func (c *Client) NewestDraw(ctx context.Context) (*Draw, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &Draw{Number: status.Draw, client: c}, nil
}

// Draw returns the draw with the given number. It asks the server what it can do, but not whether it has this draw:
// what is done in a draw that does not exist is refused with ReasonBadDraw.
func (c *Client) Draw(ctx context.Context, number int64) (*Draw, error) {
	if _, err := c.Status(ctx); err != nil {
		return nil, err
	}
	return &Draw{Number: number, client: c}, nil
}

// Done reports that the agency will send no more bets in this draw. The count is that of all its bets in this draw,
// of one upload or several. If another number is stored, the refusal has ReasonCountMismatch and that number as its
// detail; a person must look why, and the agency is not done. It can be repeated, also after the draw.
func (d *Draw) Done(ctx context.Context, count int64) error {
	return d.client.persist(ctx, func(_ context.Context, connection *conn) error {
		line, err := connection.ask(doneRequest(d.client.Agency, count, d.Number))
		if err != nil {
			return err
		}
		return decodeDone(line)
	})
}
