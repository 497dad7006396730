package sorteo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// CSVFile is a Source: the path of a file with one bet in each line, without a header, in the columns first_name,
// last_name, document, birthdate and number. Fields are separated by commas and may be quoted as in RFC 4180, but not
// contain line breaks. Lines end with LF or CRLF.
//
// It is stricter than encoding/csv, which skips empty lines, joins lines in quotes and reads lines of any length: here
// each line of the file is a bet, or an error that names the line.
type CSVFile string

// Open begins to read the file.
func (f CSVFile) Open() (Rows, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	return &csvRows{file: file, lines: bufio.NewReaderSize(file, csvLineBytesMax)}, nil
}

type csvRows struct {
	file  *os.File
	lines *bufio.Reader
	row   int64
}

func (r *csvRows) Close() error { return r.file.Close() }

func (r *csvRows) Next() (Bet, error) {
	line, err := r.line()
	if err != nil {
		return Bet{}, err
	}
	bet, err := parseCSV(line)
	return bet, inRow(err, r.row)
}

// line returns the next line, without its ending.
func (r *csvRows) line() (string, error) {
	line, err := r.lines.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(line) == 0 {
		return "", io.EOF
	}
	r.row++
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", &BadBetError{Row: r.row, Problem: fmt.Sprintf("the line is longer than %d bytes", csvLineBytesMax)}
	case errors.Is(err, io.EOF):
		// The last line may lack its ending.
	case err != nil:
		return "", err
	default:
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
	}
	if r.row == 1 && bytes.HasPrefix(line, []byte("\uFEFF")) {
		return "", &BadBetError{Row: r.row, Problem: "the file begins with a byte order mark: save it as UTF-8 without BOM"}
	}
	return string(line), nil
}

func parseCSV(line string) (Bet, error) {
	const columns = 5
	fields, err := splitCSV(line)
	if err != nil {
		return Bet{}, err
	}
	if len(fields) != columns {
		return Bet{}, &BadBetError{Problem: fmt.Sprintf("%d columns instead of %d", len(fields), columns)}
	}
	number, err := parseNumber(fields[4])
	if err != nil {
		return Bet{}, err
	}
	return Bet{FirstName: fields[0], LastName: fields[1], Document: fields[2], Birthdate: fields[3], Number: number}, nil
}

// splitCSV splits one line into its fields and removes their quotes.
func splitCSV(line string) ([]string, error) {
	var fields []string
	for {
		field, rest, err := cutCSV(line)
		if err != nil {
			return nil, err
		}
		fields = append(fields, field)
		if rest == "" {
			return fields, nil
		}
		line = rest[1:]
	}
}

// cutCSV returns the first field of a line and what follows it, which is nothing or begins with a comma.
func cutCSV(line string) (field, rest string, err error) {
	if !strings.HasPrefix(line, `"`) {
		end := strings.IndexByte(line, ',')
		if end < 0 {
			end = len(line)
		}
		if strings.Contains(line[:end], `"`) {
			return "", "", &BadBetError{Problem: "a quote in a field that does not begin with one"}
		}
		return line[:end], line[end:], nil
	}
	var text strings.Builder
	for rest = line[1:]; ; rest = rest[1:] {
		end := strings.IndexByte(rest, '"')
		if end < 0 {
			return "", "", &BadBetError{Problem: "a quoted field does not end in its line"}
		}
		text.WriteString(rest[:end])
		rest = rest[end+1:]
		switch {
		case rest == "" || rest[0] == ',':
			return text.String(), rest, nil
		case rest[0] != '"':
			return "", "", &BadBetError{Problem: "a quoted field goes on after its closing quote"}
		}
		text.WriteByte('"')
	}
}

// inRow adds the number of its row to a *BadBetError. Other errors pass.
func inRow(err error, row int64) error {
	var bad *BadBetError
	if errors.As(err, &bad) && bad.Row == 0 {
		return &BadBetError{Row: row, Field: bad.Field, Problem: bad.Problem}
	}
	return err
}
