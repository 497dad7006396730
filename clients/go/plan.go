package sorteo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A digest is the SHA-256 of the rows of a source in canonical form, from the first up to some row.
type digest [sha256.Size]byte

// A plan is what the first reading of a source tells: how many rows it has, and a digest at the end of each block.
// The last digest names the upload; the others show, block by block and before anything of it is sent, that a later
// reading returns the same rows. For a million rows they take 64 kB.
type plan struct {
	source    Source
	blockRows int
	rows      int64
	digests   []digest
}

// newPlan reads the source to its end, and with that validates every row.
func newPlan(ctx context.Context, source Source, blockRows int) (*plan, error) {
	p := &plan{source: source, blockRows: blockRows}
	blocks, err := openBlocks(source, blockRows)
	if err != nil {
		return nil, err
	}
	defer blocks.close()
	for ctx.Err() == nil {
		b, err := blocks.next()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		p.rows += int64(b.rows())
		p.digests = append(p.digests, b.digest)
	}
	return nil, ctx.Err()
}

// name returns the name of the upload.
func (p *plan) name() string {
	all := digest(sha256.Sum256(nil))
	if len(p.digests) > 0 {
		all = p.digests[len(p.digests)-1]
	}
	return hex.EncodeToString(all[:])
}

// open begins to read the source again.
func (p *plan) open() (*plannedBlocks, error) {
	blocks, err := openBlocks(p.source, p.blockRows)
	if err != nil {
		return nil, err
	}
	return &plannedBlocks{blockReader: blocks, expected: p.digests}, nil
}

// plannedBlocks reads the blocks of a source whose digests are known.
type plannedBlocks struct {
	*blockReader
	expected []digest
}

// next returns the next block, io.EOF after the last, or ErrSourceChanged.
func (r *plannedBlocks) next() (*block, error) {
	b, err := r.blockReader.next()
	var bad *BadBetError
	switch {
	case errors.As(err, &bad):
		return nil, fmt.Errorf("%w: %v", ErrSourceChanged, err)
	case errors.Is(err, io.EOF) && len(r.expected) == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return nil, ErrSourceChanged
	case err != nil:
		return nil, err
	case len(r.expected) == 0 || b.digest != r.expected[0]:
		return nil, ErrSourceChanged
	}
	r.expected = r.expected[1:]
	return b, nil
}

// A block is a number of consecutive rows, encoded as frames.
type block struct {
	first  int64 // the number of rows before it
	frames []byte
	starts []int  // where in frames each row begins
	digest digest // of all rows up to the end of the block
}

func (b *block) rows() int  { return len(b.starts) }
func (b *block) end() int64 { return b.first + int64(len(b.starts)) }

// from returns the frames of the rows from the given row of the upload on, which must be in the block.
func (b *block) from(row int64) []byte { return b.frames[b.starts[row-b.first]:] }

// A blockReader reads a source block by block.
type blockReader struct {
	rows  Rows
	size  int
	hash  hash.Hash
	block block // the current one; its memory is used again for the next
}

func openBlocks(source Source, size int) (*blockReader, error) {
	rows, err := source.Open()
	if err != nil {
		return nil, err
	}
	return &blockReader{rows: rows, size: size, hash: sha256.New()}, nil
}

func (r *blockReader) close() { r.rows.Close() }

// next returns the next block, which is valid until the next call, or io.EOF after the last.
func (r *blockReader) next() (*block, error) {
	b := &r.block
	b.first, b.frames, b.starts = b.end(), b.frames[:0], b.starts[:0]
	for b.rows() < r.size {
		bet, err := r.rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = bet.Validate()
		}
		if err != nil {
			return nil, inRow(err, b.end()+1)
		}
		b.starts = append(b.starts, len(b.frames))
		b.frames = appendRow(b.frames, bet)
		r.hash.Write(b.frames[b.starts[len(b.starts)-1]+frameHeader:])
		r.hash.Write([]byte("\n"))
	}
	if b.rows() == 0 {
		return nil, io.EOF
	}
	r.hash.Sum(b.digest[:0])
	return b, nil
}
