// Health of objects as Flux and Argo CD tell it: Flux's own evaluator, and the Lua interpreter of Argo CD with the libraries that it gives to scripts.
// One JSON object a line in, {"lua", "exprs", "object"}; one a line out, {"flux", "argo", "message"} or {"error"}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/fluxcd/pkg/apis/kustomize"
	fluxcel "github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Lua    string                           `json:"lua"`
	Exprs  kustomize.HealthCheckExpressions `json:"exprs"`
	Object json.RawMessage                  `json:"object"`
}

func answer(line []byte) (map[string]string, error) {
	var asked question
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil {
		return nil, err
	}
	evaluator, err := fluxcel.NewStatusEvaluator(&asked.Exprs)
	if err != nil {
		return nil, err
	}
	flux, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return nil, err
	}
	table, err := script(asked.Lua, object.Object)
	if err != nil {
		return nil, err
	}
	return map[string]string{"flux": string(flux.Status), "argo": table["status"], "message": table["message"]}, nil
}

func script(text string, object map[string]any) (map[string]string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(text); err != nil {
		return nil, err
	}
	found := map[string]string{}
	if table, ok := state.Get(-1).(*lua.LTable); ok {
		table.ForEach(func(key, item lua.LValue) { found[key.String()] = item.String() })
	}
	return found, nil
}

func value(state *lua.LState, from any) lua.LValue {
	switch known := from.(type) {
	case bool:
		return lua.LBool(known)
	case float64:
		return lua.LNumber(known)
	case int64:
		return lua.LNumber(known)
	case string:
		return lua.LString(known)
	case []any:
		table := state.CreateTable(len(known), 0)
		for _, item := range known {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(known))
		for key, item := range known {
			table.RawSetString(key, value(state, item))
		}
		return table
	}
	return lua.LNil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		reply, err := answer(lines.Bytes())
		if err != nil {
			reply = map[string]string{"error": err.Error()}
		}
		if err := out.Encode(reply); err != nil {
			os.Exit(1)
		}
	}
}
