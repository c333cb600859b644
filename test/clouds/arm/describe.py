"""Prints what an installed azure-mgmt package says about its service, as JSON: operations, models, enumerations.

Usage: describe.py <package directory, e.g. site/azure/mgmt/compute> <operation group>...
The sources are read, not imported: a package of 30 MB takes a second that way.
"""

import ast
import json
import os
import re
import sys


def parse(path):
    with open(path, encoding="utf-8") as f:
        return ast.parse(f.read())


def keywords(call):
    return {k.arg: k.value for k in call.keywords}


def literal(node, default=None):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return default


def type_of(node, models, enums):
    """A type annotation as {kind, ...}, and whether it is optional."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return type_of(ast.parse(node.value, mode="eval").body, models, enums)
    if isinstance(node, ast.Subscript):
        outer = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Optional":
            return type_of(inner[0], models, enums)[0], True
        if outer == "Union":
            found = [type_of(i, models, enums)[0] for i in inner]
            named = [t for t in found if t["kind"] in ("enum", "model")]
            return (named or found)[0], False
        if outer in ("list", "List", "ItemPaged", "Iterable"):
            return {"kind": "list", "of": type_of(inner[0], models, enums)[0]}, False
        if outer in ("dict", "Dict"):
            return {"kind": "dict", "of": type_of(inner[1], models, enums)[0]}, False
        if outer == "Literal":
            return {"kind": "string"}, False
        return {"kind": "any"}, False
    name = ast.unparse(node).split(".")[-1]
    if name in models:
        return {"kind": "model", "name": name}, False
    if name in enums:
        return {"kind": "enum", "name": name}, False
    kinds = {"str": "string", "int": "int", "float": "float", "bool": "bool", "datetime": "datetime", "bytes": "string"}
    return {"kind": kinds.get(name, "any")}, False


def read_enums(path):
    found = {}
    for node in parse(path).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = [
                literal(s.value) for s in node.body if isinstance(s, ast.Assign) and isinstance(literal(s.value), str)
            ]
    return found


def read_models(path, enums):
    classes = [n for n in parse(path).body if isinstance(n, ast.ClassDef)]
    names = {c.name for c in classes}
    found = {}
    for c in classes:
        fields = {}
        for s in c.body:
            if not isinstance(s, ast.AnnAssign) or not isinstance(s.value, ast.Call):
                continue
            if getattr(s.value.func, "id", "") not in ("rest_field", "rest_discriminator"):
                continue
            options = keywords(s.value)
            kind, optional = type_of(s.annotation, names, enums)
            visibility = literal(options.get("visibility"), [])
            fields[literal(options.get("name"), s.target.id)] = {
                "type": kind,
                "required": not optional,
                "readOnly": visibility == ["read"],
            }
        bases = [b.id for b in c.bases if isinstance(b, ast.Name) and b.id in names]
        found[c.name] = {"bases": bases, "fields": fields}
    return found


def read_requests(tree):
    """What build_..._request functions put on the wire, by function name."""
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("build_"):
            continue
        text = ast.unparse(node)
        url = re.search(r"_url = '([^']*)'", text)
        version = re.search(r"_params\.pop\('api-version', '([^']*)'\)", text)
        method = re.search(r"method='([A-Z]+)'", text)
        if not url or not method:
            continue
        optional = set(re.findall(r"is not None:\n\s+_params\['([^']+)'\]", text))
        query = {name: name not in optional for name in re.findall(r"_params\['([^']+)'\] =", text)}
        headers = re.findall(r"_headers\['([^']+)'\] =", text)
        found[node.name] = {
            "method": method.group(1),
            "path": url.group(1),
            "apiVersion": version.group(1) if version else "",
            "query": query,
            "headers": headers,
        }
    return found


def camel(name):
    return "".join(part.capitalize() for part in name.split("_"))


def read_operations(path, groups, models, enums):
    tree = parse(path)
    requests = read_requests(tree)
    found = []
    for c in tree.body:
        if not isinstance(c, ast.ClassDef) or not c.name.endswith("Operations"):
            continue
        group = c.name[: -len("Operations")].lstrip("_")
        if group not in groups:
            continue
        functions = [f for f in c.body if isinstance(f, ast.FunctionDef)]
        for f in functions:
            text = ast.unparse(f)
            built = re.search(r"\b(build_\w+_request)\(", text)
            if not built or built.group(1) not in requests:
                continue
            public = re.sub(r"^_(\w+)_initial$", r"\1", f.name)
            body = None
            for a in f.args.args + f.args.kwonlyargs:
                if a.annotation is not None and "IO[bytes]" in ast.unparse(a.annotation):
                    body = type_of(a.annotation, models, enums)[0]
            whole = text + "".join(ast.unparse(g) for g in functions if g.name == "begin_" + public)
            # A list says List[Item]; what is got whole says its model.
            listed = re.search(r"_deserialize\(\s*List\[_models\.(\w+)\]", whole)
            replies = re.findall(r"_deserialize\(\s*_models\.(\w+), (?:pipeline_)?response", whole)
            single = [m for m in replies if m not in ("CloudError", "ErrorResponse")]
            failed = re.search(r"status_code not in \[([\d, ]+)\]", text)
            found.append(
                {
                    "name": group + "_" + camel(public),
                    **requests[built.group(1)],
                    "body": body,
                    "statuses": [int(s) for s in failed.group(1).split(",")] if failed else [],
                    "longRunning": f.name.endswith("_initial"),
                    "page": listed.group(1) if listed else None,
                    "reply": single[0] if single and not listed else None,
                }
            )
    return found


def reachable(operations, models):
    left = [o["body"]["name"] for o in operations if o["body"] and o["body"]["kind"] == "model"]
    left += [o[k] for o in operations for k in ("page", "reply") if o[k]]
    kept, enums = {}, set()
    while left:
        name = left.pop()
        if name in kept or name not in models:
            continue
        kept[name] = models[name]
        left += models[name]["bases"]
        for field in models[name]["fields"].values():
            kind = field["type"]
            while "of" in kind:
                kind = kind["of"]
            if kind["kind"] == "model":
                left.append(kind["name"])
            elif kind["kind"] == "enum":
                enums.add(kind["name"])
    return kept, enums


def main():
    root, groups = sys.argv[1], set(sys.argv[2:])
    enums = read_enums(os.path.join(root, "models", "_enums.py"))
    models = read_models(os.path.join(root, "models", "_models.py"), enums)
    operations = read_operations(os.path.join(root, "operations", "_operations.py"), groups, models, enums)
    kept, used = reachable(operations, models)
    missing = groups - {o["name"].split("_")[0] for o in operations}
    if missing:
        raise SystemExit("operation groups that are not there: " + ", ".join(sorted(missing)))
    json.dump({"operations": operations, "models": kept, "enums": {n: enums[n] for n in sorted(used)}}, sys.stdout)


main()
