/* One request: the SAPI callbacks that PHP makes, and the one function that runs it. */
#include "internal.h"

#include <strings.h>
#include <unistd.h>

#include "ext/standard/info.h"
#include "zend_smart_str.h"

#include "reasons.h"

/* --- What PHP asks for ------------------------------------------------------------------- */

static bool is_variable(const howdah_variable *variable, const char *name, size_t length)
{
	return variable->name_length == length && memcmp(variable->name, name, length) == 0;
}

/* The last one of duplicates counts, as for the Rust side, for $_SERVER and in php-fpm: nginx sends two where
 * its configuration sets a parameter anew after an include. */
const howdah_variable *request_variable(const howdah_request *request, const char *name, size_t length)
{
	for (size_t i = request->variable_count; i > 0; i--) {
		if (is_variable(&request->variables[i - 1], name, length)) {
			return &request->variables[i - 1];
		}
	}
	return NULL;
}

static char *sapi_environment(const char *name, size_t length)
{
	const howdah_request *request = current_request();
	const howdah_variable *variable;

	if (!request) {
		return getenv(name);
	}
	variable = request_variable(request, name, length);
	/* PHP duplicates it and never writes to it. */
	return variable ? (char *) variable->value : NULL;
}

static char *read_cookies(void)
{
	const howdah_request *request = current_request();
	const howdah_variable *cookie;

	if (!request) {
		return NULL;
	}
	cookie = request_variable(request, ZEND_STRL("HTTP_COOKIE"));
	return cookie ? (char *) cookie->value : NULL;
}

static size_t read_post(char *buffer, size_t length)
{
	const howdah_request *request = current_request();
	size_t filled = 0;
	uint64_t left;

	if (!request || howdah_forked || HG(request).finished || HG(request).body_closed) {
		return 0;
	}
	left = (uint64_t) request->content_length - (uint64_t) SG(read_post_bytes);
	if (left < length) {
		length = (size_t) left;
	}
	while (filled < length) {
		ptrdiff_t got = howdah_calls.read_body(request->context, buffer + filled, length - filled);
		if (got <= 0) {
			/* No bailout in here: it would leave an upload's file open. The script is kept from
			 * running, or ended where PHP comes to its next instruction. */
			if (got < 0) {
				HG(request).body_closed = true;
				if (PG(during_request_startup)) {
					HG(request).body_lost = true;
				} else {
					interrupt_abort();
				}
			}
			break;
		}
		filled += (size_t) got;
	}
	return filled;
}

/* --- What PHP gives back ----------------------------------------------------------------- */

static size_t unbuffered_write(const char *data, size_t length)
{
	const howdah_request *request = current_request();

	if (!request) {
		/* -i, -m: there is no client but the terminal. */
		size_t written = 0;
		while (written < length) {
			ssize_t n = write(STDOUT_FILENO, data + written, length - written);
			if (n <= 0) {
				break;
			}
			written += (size_t) n;
		}
		return written;
	}
	if (howdah_forked || HG(request).finished) {
		return length;
	}
	if (!howdah_calls.write(request->context, data, length)) {
		php_handle_aborted_connection();
		return 0;
	}
	return length;
}

static void flush(void *server_context)
{
	const howdah_request *request = (const howdah_request *) server_context;

	if (request && !howdah_forked && !HG(request).finished && !howdah_calls.flush(request->context)) {
		php_handle_aborted_connection();
	}
}

static bool header_is(const sapi_header_struct *header, const char *name, size_t length)
{
	return header->header_len >= length && strncasecmp(header->header, name, length) == 0;
}
#define STATUS_HEADER(header) header_is(header, ZEND_STRL("Status:"))

/* The response's status line as CGI wants it: "Status: 404 Not Found". A script may have set it
 * as "HTTP/1.1 404 Gone fishing", as "Status: 404 ...", or only as a code. */
static void append_status(smart_str *out, const sapi_headers_struct *headers)
{
	const char *line = headers->http_status_line;
	int code = headers->http_response_code;
	const char *reason = NULL;

	if (line && strncasecmp(line, "HTTP/", 5) == 0 && (reason = strchr(line, ' '))) {
		while (*reason == ' ') {
			reason++;
		}
		/* PHP has taken the code from the same place. What follows it is the reason. */
		reason += strspn(reason, "0123456789");
		while (*reason == ' ') {
			reason++;
		}
	}
	if (code < 100 || code > 999) {
		/* Web servers take an answer without three digits for no answer at all. */
		code = 500;
		reason = NULL;
	}
	if (!reason || !*reason) {
		reason = reason_phrase(code);
	}
	if (HG(rfc2616_headers)) {
		smart_str_appends(out, "HTTP/1.1 ");
	} else {
		smart_str_appends(out, "Status: ");
	}
	smart_str_append_long(out, code);
	if (reason) {
		smart_str_appendc(out, ' ');
		smart_str_appends(out, reason);
	}
	smart_str_appends(out, "\r\n");
}

/* Whether a script's own "Status:" header begins with three digits. */
static bool is_status(const sapi_header_struct *header)
{
	const char *value = header->header + strlen("Status:");
	size_t digits;

	value += strspn(value, " \t");
	digits = strspn(value, "0123456789");
	return digits == 3 && value[0] != '0' && strchr(" \t", value[digits]) != NULL;
}

static int send_headers(sapi_headers_struct *headers)
{
	const howdah_request *request = current_request();
	zend_llist_position position;
	sapi_header_struct *header;
	const sapi_header_struct *status = NULL;
	smart_str out = {0};
	bool written;

	if (!request || SG(request_info).no_headers || howdah_forked || HG(request).finished) {
		return SAPI_HEADER_SENT_SUCCESSFULLY;
	}

	for (header = zend_llist_get_first_ex(&headers->headers, &position); header;
			header = zend_llist_get_next_ex(&headers->headers, &position)) {
		if (STATUS_HEADER(header)) {
			status = header;
			break;
		}
	}
	if (status && !headers->http_status_line && !is_status(status)) {
		headers->http_response_code = 500;
		append_status(&out, headers);
	} else if (status && !headers->http_status_line) {
		smart_str_appendl(&out, status->header, status->header_len);
		smart_str_appends(&out, "\r\n");
	} else if (HG(nph) || headers->http_response_code != 200 || headers->http_status_line) {
		append_status(&out, headers);
	}

	for (header = zend_llist_get_first_ex(&headers->headers, &position); header;
			header = zend_llist_get_next_ex(&headers->headers, &position)) {
		if (header->header_len == 0 || STATUS_HEADER(header)) {
			continue;
		}
		if (headers->http_response_code == 304 && header_is(header, ZEND_STRL("Content-Type:"))) {
			continue;
		}
		smart_str_appendl(&out, header->header, header->header_len);
		smart_str_appends(&out, "\r\n");
	}
	smart_str_appends(&out, "\r\n");

	written = howdah_calls.write(request->context, ZSTR_VAL(out.s), ZSTR_LEN(out.s));
	smart_str_free(&out);
	if (!written) {
		php_handle_aborted_connection();
		return SAPI_HEADER_SEND_FAILED;
	}
	return SAPI_HEADER_SENT_SUCCESSFULLY;
}

static void log_message(const char *message, int syslog_type)
{
	const howdah_request *request = current_request();

	(void) syslog_type;
	howdah_calls.log(request ? request->context : NULL, message, strlen(message),
		request && HG(logging) && !howdah_forked);
}

/* --- Server variables -------------------------------------------------------------------- */

static void register_variables(const howdah_request *request, zval *array, int filter)
{
	for (size_t i = 0; i < request->variable_count; i++) {
		const howdah_variable *variable = &request->variables[i];
		char *value = (char *) variable->value;
		size_t length = variable->value_length;

		if (is_variable(variable, ZEND_STRL("HTTP_PROXY"))) {
			/* The request's header "Proxy", which HTTP clients would take for a setting ("httpoxy"). */
			continue;
		}
		if (filter < 0) {
			php_register_variable_safe(variable->name, value, length, array);
			continue;
		}
		/* The filter takes an emalloc'ed string that it may replace. */
		value = estrndup(value, length);
		if (sapi_module.input_filter(filter, variable->name, &value, length, &length)) {
			php_register_variable_safe(variable->name, value, length, array);
		}
		efree(value);
	}
}

static void (*import_process_environment)(zval *array);

static bool reuse_variables(zval *array, int track)
{
	zval *ready = &PG(http_globals)[track];

	if (Z_TYPE_P(ready) != IS_ARRAY || Z_ARR_P(ready) == Z_ARR_P(array)
			|| zend_hash_num_elements(Z_ARRVAL_P(ready)) == 0) {
		return false;
	}
	zend_array_destroy(Z_ARR_P(array));
	ZVAL_ARR(array, zend_array_dup(Z_ARR_P(ready)));
	return true;
}

/* For $_ENV and $_SERVER: as in CGI, the request's parameters are part of the environment. */
static void import_environment(zval *array)
{
	const howdah_request *request = current_request();
	bool env = Z_TYPE(PG(http_globals)[TRACK_VARS_ENV]) == IS_ARRAY
		&& Z_ARR_P(array) == Z_ARR(PG(http_globals)[TRACK_VARS_ENV]);

	if (reuse_variables(array, TRACK_VARS_ENV) || reuse_variables(array, TRACK_VARS_SERVER)) {
		return;
	}
	import_process_environment(array);
	environment_import(array);
	if (request) {
		register_variables(request, array, env ? PARSE_ENV : PARSE_SERVER);
	}
}

/* For getenv() without a name. */
static void load_environment(zval *array)
{
	const howdah_request *request = current_request();

	import_process_environment(array);
	environment_import(array);
	if (request) {
		register_variables(request, array, -1);
	}
}

static void register_server_variables(zval *array)
{
	const howdah_request *request = current_request();
	const howdah_variable *path_info = NULL;
	char *php_self;
	size_t length;

	php_import_environment_variables(array);

	if (request && HG(fix_pathinfo)) {
		path_info = request_variable(request, ZEND_STRL("PATH_INFO"));
	}
	length = spprintf(&php_self, 0, "%s%s",
		SG(request_info).request_uri ? SG(request_info).request_uri : "",
		path_info ? path_info->value : "");
	if (sapi_module.input_filter(PARSE_SERVER, "PHP_SELF", &php_self, length, &length)) {
		php_register_variable_safe("PHP_SELF", php_self, length, array);
	}
	efree(php_self);
}

/* --- The SAPI module --------------------------------------------------------------------- */

static int startup(sapi_module_struct *module)
{
	if (php_module_startup(module, &howdah_module_entry) == FAILURE) {
		return FAILURE;
	}
	import_process_environment = php_import_environment_variables;
	php_import_environment_variables = import_environment;
	php_load_environment_variables = load_environment;
	return SUCCESS;
}

/* PHP calls it while it starts a request, once the request's data is in place. */
static int activate(void)
{
	if (current_request() && SG(request_info).path_translated) {
		user_ini_activate(current_request());
	}
	return SUCCESS;
}

/* opcache up to 8.4 serves only SAPIs that it knows, and applications test PHP_SAPI: the name is
 * php-fpm's. Fields by name, as versions add and move them. */
sapi_module_struct howdah_sapi = {
	.name = "fpm-fcgi",
	.pretty_name = "FPM/FastCGI",
	.startup = startup,
	.shutdown = php_module_shutdown_wrapper,
	.activate = activate,
	.ub_write = unbuffered_write,
	.flush = flush,
	.getenv = sapi_environment,
	.sapi_error = php_error,
	.send_headers = send_headers,
	.read_post = read_post,
	.read_cookies = read_cookies,
	.register_server_variables = register_server_variables,
	.log_message = log_message,
};

/* --- The request ------------------------------------------------------------------------- */

/* PHP reads all of this while it starts the request. */
static void set_request_info(const howdah_request *request)
{
	const howdah_variable *authorization = request_variable(request, ZEND_STRL("HTTP_AUTHORIZATION"));

	SG(server_context) = (void *) request;
	SG(sapi_headers).http_response_code = 200;
	SG(request_info).request_method = request->method;
	SG(request_info).query_string = (char *) request->query_string;
	SG(request_info).content_type = request->content_type ? request->content_type : "";
	SG(request_info).content_length = (zend_long) request->content_length;
	SG(request_info).request_uri = (char *) request->request_uri;
	SG(request_info).proto_num = 1000;
	/* PHP frees and replaces it while it opens the script. */
	SG(request_info).path_translated = request->script ? estrdup(request->script) : NULL;
	php_handle_auth_data(authorization ? authorization->value : NULL);
}

static void say(int status, const char *text)
{
	zend_try {
		SG(sapi_headers).http_response_code = status;
		PUTS(text);
	} zend_end_try();
}

static void run_script(const howdah_request *request)
{
	zend_file_handle file;
	/* Volatile: they are read after a longjmp. */
	volatile bool opened = false;
	volatile int error = 0;

	/* Opening can bail out (open_basedir's warning under an error handler's exit, for one). */
	zend_try {
		errno = 0;
		opened = php_fopen_primary_script(&file) == SUCCESS;
		error = errno;
	} zend_end_try();
	if (!opened) {
		int status = 404;
		const char *body = howdah_calls.not_opened(request->context, error, &status);
		say(status, body);
		return;
	}
	EG(exit_status) = 0;
	php_execute_script(&file);
	/* From the second time on opcache leaves the handle out of the list that PHP destroys. */
	if (!file.in_list) {
		zend_destroy_file_handle(&file);
	}
}

/* Nothing ran. Shutdown sends what there is of an answer. */
static void fail_request(void)
{
	if (!SG(headers_sent)) {
		SG(sapi_headers).http_response_code = 500;
	}
}

static howdah_outcome run(const howdah_request *request)
{
	HG(request) = (request_state) {0};
	interrupt_request_start();
	set_request_info(request);
	request_ini_activate(request);
	if (php_request_startup() == FAILURE) {
		/* $_POST was over the memory limit, for one. */
		fail_request();
		return HOWDAH_NOT_STARTED;
	}
	if (HG(request).body_lost) {
		fail_request();
		return HOWDAH_BODY_LOST;
	}
	interrupt_request_started();
	if (request->refusal) {
		say(request->refusal_status, request->refusal);
	} else {
		run_script(request);
	}
	if (EG(exit_status) == 255 && HG(error_header) && *HG(error_header) && !SG(headers_sent)) {
		sapi_header_line line = {0};
		line.line = HG(error_header);
		line.line_len = strlen(HG(error_header));
		sapi_header_op(SAPI_HEADER_REPLACE, &line);
	}
	return HOWDAH_ENDED;
}

howdah_result howdah_request_run(const howdah_request *request)
{
	/* Volatile: they are read after a longjmp. */
	volatile howdah_result result = { .outcome = HOWDAH_BROKEN };
	volatile bool ended = false;

	zend_first_try {
		result.outcome = run(request);
		ended = true;
	} zend_end_try();

	/* Shut down even after a bailout above, but in a guard of its own. */
	zend_first_try {
		if (!ended) {
			CG(unclean_shutdown) = 1;
		}
		result.peak_memory = zend_memory_peak_usage(true);
		if (SG(request_info).path_translated) {
			efree(SG(request_info).path_translated);
			SG(request_info).path_translated = NULL;
		}
		php_request_shutdown(NULL);
		result.status = SG(sapi_headers).http_response_code;
		result.exit_status = EG(exit_status);
	} zend_catch {
		result.outcome = HOWDAH_BROKEN;
	} zend_end_try();

	if (howdah_forked) {
		/* A script's child has come to the script's end: nothing of this process is its own. */
		_exit(result.exit_status);
	}
	interrupt_request_end();
	SG(server_context) = NULL;
	SG(request_info).path_translated = NULL;
	HG(broken) = result.outcome == HOWDAH_BROKEN;
	return result;
}
