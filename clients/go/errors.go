package sorteo

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrDrawOver is matched by the refusal of a bet that came after its draw. Nothing of it was stored, neither in that
// draw nor in the next one.
var ErrDrawOver = errors.New("sorteo: the draw is over")

// ErrSourceChanged is returned if a Source has other rows than when it was read first. Only rows that it had then
// were sent.
var ErrSourceChanged = errors.New("sorteo: the bets changed while they were being uploaded")

// ErrUnauthorized is matched by the refusal of a token that is wrong, expired, revoked or another agency's, and of any
// request where the server demands a token and has got none.
var ErrUnauthorized = errors.New("sorteo: no token, or one that is not valid for this agency (any more)")

// ErrForbidden is matched by the refusal of a request for another agency than the token or certificate is for.
var ErrForbidden = errors.New("sorteo: the token or certificate is another agency's")

// A Reason is the code with which the server refuses a request. The protocol lists more of them than are named here,
// and a newer server may know others still.
type Reason string

// Reasons that this client acts upon, or that a caller may want to.
const (
	ReasonAgencyDone      Reason = "agency_done"
	ReasonBadDraw         Reason = "bad_draw"
	ReasonBusy            Reason = "busy"
	ReasonConflict        Reason = "conflict"
	ReasonCountMismatch   Reason = "count_mismatch"
	ReasonDrawClosed      Reason = "draw_closed"
	ReasonForbidden       Reason = "forbidden"
	ReasonGap             Reason = "gap"
	ReasonNotReady        Reason = "not_ready"
	ReasonStorageFull     Reason = "storage_full"
	ReasonTooManyAgencies Reason = "too_many_agencies"
	ReasonUnauthorized    Reason = "unauthorized"
	ReasonUnavailable     Reason = "unavailable"
	ReasonUnknown         Reason = "unknown"
	ReasonUnknownAgency   Reason = "unknown_agency"
)

// temporary tells whether the request can succeed later, or from another row on.
func (r Reason) temporary() bool {
	switch r {
	case ReasonBusy, ReasonStorageFull, ReasonUnavailable, ReasonGap, ReasonConflict, ReasonNotReady:
		return true
	}
	return false
}

// A RefusedError is a request that the server understood and refused. Nothing of it was stored.
type RefusedError struct {
	Reason Reason
	Detail string // what the reason says beyond its code, such as the stored count of count_mismatch
	Row    int64  // the row that it is about, counted from 1, or 0
}

func (e *RefusedError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "sorteo: the server refused: %s", e.Reason)
	if e.Detail != "" {
		fmt.Fprintf(&text, " (%s)", e.Detail)
	}
	if e.Row != 0 {
		fmt.Fprintf(&text, ", in row %d", e.Row)
	}
	if kind := e.kind(); kind == ErrUnauthorized || kind == ErrForbidden {
		text.WriteString(strings.Replace(kind.Error(), "sorteo", "", 1))
	}
	return text.String()
}

// Is makes some refusals match an error of their own, such as ErrDrawOver.
func (e *RefusedError) Is(target error) bool {
	return target != nil && target == e.kind()
}

func (e *RefusedError) kind() error {
	switch e.Reason {
	case ReasonDrawClosed:
		return ErrDrawOver
	case ReasonUnauthorized:
		return ErrUnauthorized
	case ReasonForbidden:
		return ErrForbidden
	}
	return nil
}

// An IdentityError is a file with a token, key or certificate that cannot be used, or a certificate of the client that
// the server refused, or demands.
type IdentityError struct {
	File    string // or empty if there is none
	Problem string // never shows what a file holds
}

func (e *IdentityError) Error() string {
	if e.File == "" {
		return "sorteo: " + e.Problem
	}
	return fmt.Sprintf("sorteo: %s: %s", e.File, e.Problem)
}

// An UntrustedError is a server whose certificate is not one of the given authority, is for another name, or has
// expired.
type UntrustedError struct {
	Server string // as the client was given it
	CAFile string
	Err    error // of crypto/x509
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("sorteo: the certificate of %s is not valid by %s: %v", e.Server, e.CAFile, e.Err)
}

func (e *UntrustedError) Unwrap() error { return e.Err }

// An UnreachableError is the end of a client's patience: for so long nothing succeeded. What was acknowledged stays
// stored, and the same call later continues behind it.
type UnreachableError struct {
	Address string
	After   time.Duration // without progress
	Err     error         // why the last attempt failed
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("sorteo: no progress with %s for %v: %v", e.Address, e.After, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// A ProtocolError is a reply that this client does not understand, or a server that does not understand this client.
type ProtocolError struct {
	Problem string
	Reply   string // the beginning of the reply, if it could be read
}

func (e *ProtocolError) Error() string {
	if e.Reply == "" {
		return "sorteo: " + e.Problem
	}
	return fmt.Sprintf("sorteo: %s: %q", e.Problem, e.Reply)
}

// A BadBetError is a row that the server would refuse. It is found before anything is sent.
type BadBetError struct {
	Row     int64  // counted from 1, or 0 for a bet on its own
	Field   string // its name in the protocol, such as "birthdate", or empty if the row has no fields to name
	Problem string
}

func (e *BadBetError) Error() string {
	var text strings.Builder
	text.WriteString("sorteo: ")
	if e.Row != 0 {
		fmt.Fprintf(&text, "row %d: ", e.Row)
	}
	if e.Field != "" {
		fmt.Fprintf(&text, "%s: ", e.Field)
	}
	text.WriteString(e.Problem)
	return text.String()
}

// A lostError is a connection that could not be made, or broke, or fell silent. The outcome of what was sent on it is
// unknown, so the client asks again on another one.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }
