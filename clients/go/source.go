package sorteo

import "io"

// A Source is a list of bets that can be read from its beginning as often as needed, with the same bets each time.
type Source interface {
	Open() (Rows, error)
}

// Rows is one reading of a Source.
type Rows interface {
	// Next returns the next bet, or io.EOF after the last.
	Next() (Bet, error)
	io.Closer
}

// Bets is a Source in memory.
type Bets []Bet

// Open begins to read the bets.
func (b Bets) Open() (Rows, error) {
	rows := betRows(b)
	return &rows, nil
}

type betRows []Bet

func (r *betRows) Next() (Bet, error) {
	if len(*r) == 0 {
		return Bet{}, io.EOF
	}
	bet := (*r)[0]
	*r = (*r)[1:]
	return bet, nil
}

func (r *betRows) Close() error { return nil }
