// Walks through the API with the client that oapi-codegen generates.
package main

import (
	"context"
	"fmt"
	"log"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"

	"github.com/oapi-codegen/nullable"

	"task-api-client/taskapi"
)

func main() {
	log.SetFlags(log.Lshortfile)
	ctx := context.Background()
	api := must(taskapi.NewClientWithResponses(os.Args[1]))

	one := taskapi.NewTask{Title: "one", Description: nullable.NewNullableWithValue("all")}
	created := must(api.CreateTaskWithResponse(ctx, nil, one))
	task := created.JSON201
	equal(created.StatusCode(), 201)
	equal(task.Title, "one")
	equal(task.Status, taskapi.Todo)
	equal(task.Description.MustGet(), "all")
	equal(task.Version, int64(1))

	read := must(api.GetTaskWithResponse(ctx, task.Id, nil))
	equal(read.JSON200, task)
	etag := read.HTTPResponse.Header.Get("ETag")
	unless := &taskapi.GetTaskParams{IfNoneMatch: &etag}
	unchanged := must(api.GetTaskWithResponse(ctx, task.Id, unless))
	equal(unchanged.StatusCode(), 304)

	more := taskapi.NewTasks{{Title: "two"}, {Title: "three"}}
	batch := must(api.CreateTasksWithResponse(ctx, nil, more))
	equal(titles(*batch.JSON201), []string{"two", "three"})

	limit := 2
	page := &taskapi.ListTasksParams{Limit: &limit}
	first := must(api.ListTasksWithResponse(ctx, page))
	link := first.HTTPResponse.Header.Get("Link")
	next := regexp.MustCompile("[?&]cursor=([^&>]+)").FindStringSubmatch(link)
	cursor := must(url.QueryUnescape(next[1]))
	page.Cursor = &cursor
	second := must(api.ListTasksWithResponse(ctx, page))
	equal(second.HTTPResponse.Header.Get("Link"), "")
	both := titles(slices.Concat(*first.JSON200, *second.JSON200))
	slices.Sort(both)
	equal(both, []string{"one", "three", "two"})

	status := taskapi.Done
	done := taskapi.TaskPatch{Status: &status, Description: nullable.NewNullNullable[string]()}
	firstVersion := &taskapi.PatchTaskParams{IfMatch: &etag}
	patched := must(api.PatchTaskWithResponse(ctx, task.Id, firstVersion, done))
	equal(patched.JSON200.Status, taskapi.Done)
	equal(patched.JSON200.Description.IsNull(), true)
	equal(patched.JSON200.Title, "one")
	equal(patched.JSON200.Version, int64(2))

	late := must(api.PatchTaskWithResponse(ctx, task.Id, firstVersion, done))
	equal(late.StatusCode(), 412)
	equal(late.ApplicationproblemJSON412.Title, "Precondition Failed")

	blank := must(api.CreateTaskWithResponse(ctx, nil, taskapi.NewTask{Title: " "}))
	equal(blank.StatusCode(), 422)
	invalid := (*blank.ApplicationproblemJSON422.Errors)[0]
	equal(*invalid.Pointer, "/title")
	equal(invalid.Code, taskapi.Length)
	equal(blank.ApplicationproblemJSON422.RequestId, blank.HTTPResponse.Header.Get("X-Request-Id"))

	deleted := must(api.DeleteTaskWithResponse(ctx, task.Id, nil))
	equal(deleted.StatusCode(), 204)
	gone := must(api.GetTaskWithResponse(ctx, task.Id, nil))
	equal(gone.StatusCode(), 404)
	equal(gone.ApplicationproblemJSON404.Title, "Not Found")
}

func titles(tasks []taskapi.Task) []string {
	var titles []string
	for _, task := range tasks {
		titles = append(titles, task.Title)
	}
	return titles
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
	return value
}

func equal(found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		log.Output(2, fmt.Sprintf("found %v instead of %v", found, expected))
		os.Exit(1)
	}
}
