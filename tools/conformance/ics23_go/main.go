// Command ics23_go judges proofs of DLLM's state tree with the Go implementation of ICS-23.
//
// It reads a JSON list of cases from standard input, bytes in hex, and prints a JSON list of verdicts in the same
// order. A case without a value asks for absence. The specification is that of the tree (docs/protocol/state.md) and
// is stated here once more, so that it is compared and not shared.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	ics23 "github.com/cosmos/ics23/go"
)

type proofCase struct {
	Root  string  `json:"root"`
	Key   string  `json:"key"`
	Value *string `json:"value"`
	Proof string  `json:"proof"`
}

func treeSpec() *ics23.ProofSpec {
	return &ics23.ProofSpec{
		LeafSpec: &ics23.LeafOp{
			Hash:         ics23.HashOp_SHA256,
			PrehashKey:   ics23.HashOp_SHA256,
			PrehashValue: ics23.HashOp_SHA256,
			Length:       ics23.LengthOp_NO_PREFIX,
			Prefix:       []byte("JMT::LeafNode"),
		},
		InnerSpec: &ics23.InnerSpec{
			ChildOrder:      []int32{0, 1},
			ChildSize:       32,
			MinPrefixLength: 16,
			MaxPrefixLength: 16,
			EmptyChild:      []byte("SPARSE_MERKLE_PLACEHOLDER_HASH__"),
			Hash:            ics23.HashOp_SHA256,
		},
		MaxDepth:                   256,
		PrehashKeyBeforeComparison: true,
	}
}

// accepts says whether the proof shows what the case claims; bytes that are no proof show nothing.
func accepts(one proofCase) (bool, error) {
	var fields [3][]byte
	for at, text := range []string{one.Root, one.Key, one.Proof} {
		decoded, err := hex.DecodeString(text)
		if err != nil {
			return false, err
		}
		fields[at] = decoded
	}
	root, key := fields[0], fields[1]
	var proof ics23.CommitmentProof
	if err := proof.Unmarshal(fields[2]); err != nil {
		return false, nil
	}
	if one.Value == nil {
		return ics23.VerifyNonMembership(treeSpec(), root, &proof, key), nil
	}
	value, err := hex.DecodeString(*one.Value)
	if err != nil {
		return false, err
	}
	return ics23.VerifyMembership(treeSpec(), root, &proof, key, value), nil
}

func run() error {
	var cases []proofCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		return err
	}
	verdicts := make([]bool, len(cases))
	for at, one := range cases {
		verdict, err := accepts(one)
		if err != nil {
			return fmt.Errorf("case %d: %w", at, err)
		}
		verdicts[at] = verdict
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
