package sorteo

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// frameHeader is the number of bytes of the length before each line.
const frameHeader = 4

// appendFrame appends one line and its length.
func appendFrame(dst []byte, line string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(line)))
	return append(dst, line...)
}

// appendRow appends the frame of a row of a batch.
func appendRow(dst []byte, bet Bet) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	dst = bet.appendCanonical(dst)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-frameHeader))
	return dst
}

// readFrame reads a reply and returns its line. An error other than a *ProtocolError is one of reading.
func readFrame(r io.Reader) (string, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return "", err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length == 0 || length > frameBytesMax {
		return "", &ProtocolError{Problem: fmt.Sprintf("a reply of %d bytes; 1 to %d are possible", length, frameBytesMax)}
	}
	frame := make([]byte, length)
	if _, err := io.ReadFull(r, frame); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	// Errors quote replies, and a peer that is no sorteo server may send back what it was sent.
	line := tokenPattern.ReplaceAllString(string(frame), "sorteo_...")
	if !utf8.ValidString(line) {
		return "", protocolError("a reply that is not UTF-8", line)
	}
	if !strings.HasSuffix(line, "\n") {
		return "", protocolError("a reply without its line ending", line)
	}
	return line[:len(line)-1], nil
}

// protocolError quotes the beginning of a reply.
func protocolError(problem, reply string) error {
	const quoted = 100 // bytes
	if len(reply) > quoted {
		reply = reply[:quoted]
	}
	return &ProtocolError{Problem: problem, Reply: reply}
}
