package sorteo

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// A Bet is one row of an upload.
type Bet struct {
	FirstName string
	LastName  string
	Document  string
	Birthdate string // YYYY-MM-DD
	Number    uint32
}

// Validate returns a *BadBetError about the first field that the server would refuse, or nil.
func (b Bet) Validate() error {
	for _, field := range []struct{ name, problem string }{
		{"first_name", nameProblem(b.FirstName)},
		{"last_name", nameProblem(b.LastName)},
		{"document", documentProblem(b.Document)},
		{"birthdate", birthdateProblem(b.Birthdate)},
	} {
		if field.problem != "" {
			return &BadBetError{Field: field.name, Problem: field.problem}
		}
	}
	return nil
}

// appendCanonical appends the one form in which a bet is sent and counts towards the digest of its upload.
func (b Bet) appendCanonical(dst []byte) []byte {
	for _, text := range [...]string{b.FirstName, b.LastName, b.Document, b.Birthdate} {
		dst = append(dst, text...)
		dst = append(dst, '|')
	}
	return strconv.AppendUint(dst, uint64(b.Number), 10)
}

func nameProblem(name string) string {
	if problem := lengthProblem(name, nameBytesMax); problem != "" {
		return problem
	}
	if !utf8.ValidString(name) {
		return "not UTF-8"
	}
	for _, r := range name {
		if r == '|' || isInvisible(r) {
			return fmt.Sprintf("%q must not contain U+%04X", name, r)
		}
	}
	return ""
}

func documentProblem(document string) string {
	if problem := lengthProblem(document, documentMax); problem != "" {
		return problem
	}
	for i := 0; i < len(document); i++ {
		if !isDocumentByte(document[i]) {
			return fmt.Sprintf("%q has more than ASCII letters, digits, '.', '-', '/' and spaces", document)
		}
	}
	return ""
}

func isDocumentByte(c byte) bool {
	switch {
	case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return true
	}
	return c == '.' || c == '-' || c == '/' || c == ' '
}

func birthdateProblem(date string) string {
	const layout = "2006-01-02"
	if _, err := time.Parse(layout, date); err != nil || len(date) != len(layout) {
		return fmt.Sprintf("%.20q is not a date YYYY-MM-DD that exists", date)
	}
	return ""
}

func lengthProblem(text string, max int) string {
	switch {
	case text == "":
		return "empty"
	case len(text) > max:
		return fmt.Sprintf("%d bytes are over the limit of %d", len(text), max)
	}
	return ""
}

// parseNumber reads the number of a bet, which may have leading zeros.
func parseNumber(text string) (uint32, error) {
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		problem := fmt.Sprintf("%.20q is not a decimal number from 0 to %d", text, uint32(numberMax))
		return 0, &BadBetError{Field: "number", Problem: problem}
	}
	return uint32(number), nil
}
