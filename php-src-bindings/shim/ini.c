/* INI settings that are not php.ini's: the pool's, the request's (PHP_VALUE), and .user.ini files. */
#include "internal.h"

#include <pthread.h>
#include <sys/stat.h>

#include "zend_ini_scanner.h"

/* --- The pool's -------------------------------------------------------------------------- */

static const howdah_engine_config *starting;
/* What each interpreter copies its settings from. With threads, the one that starts PHP has a copy of its
 * own in the end, and this is no longer to be found. */
static HashTable *all_settings;

static bool is_setting(const char *name, const char *wanted)
{
	return strcmp(name, wanted) == 0;
}

/* Those that only count while PHP starts. */
static bool is_startup_setting(const char *name)
{
	return is_setting(name, "extension") || is_setting(name, "disable_functions")
		|| is_setting(name, "disable_classes");
}

/* `ini_entries` and the pool's extensions, which load like those of php.ini: in threads an extension
 * that came later would be missing. The result lives as long as the process. */
char *pool_ini_entries(const howdah_engine_config *config)
{
	const char *last = opcache_ini_entries();
	size_t size = strlen(last) + 1;
	char *entries, *end;

	starting = config;
	if (config->ini_entries) {
		size += strlen(config->ini_entries) + 1;
	}
	for (size_t i = 0; i < config->pool_ini_count; i++) {
		size += strlen(config->pool_ini[i].value) + sizeof("extension=\"\"\n");
	}
	entries = malloc(size);
	if (!entries) {
		return NULL;
	}
	end = entries;
	*end = '\0';
	if (config->ini_entries) {
		end += sprintf(end, "%s\n", config->ini_entries);
	}
	for (size_t i = 0; i < config->pool_ini_count; i++) {
		const howdah_ini *setting = &config->pool_ini[i];
		if (is_setting(setting->name, "extension") && *setting->value) {
			end += sprintf(end, "extension=\"%s\"\n", setting->value);
		}
	}
	strcpy(end, last);
	return entries;
}

static zend_ini_entry *entry_of(HashTable *settings, const char *name)
{
	return zend_hash_str_find_ptr(settings, name, strlen(name));
}

static void change(zend_ini_entry *entry, zend_string *value, bool admin)
{
	/* The old value is not freed: on_modify may have handed out pointers into it. */
	entry->value = value;
	if (admin) {
		/* Neither ini_set() nor a .user.ini file may change it. */
		entry->modifiable = ZEND_INI_SYSTEM;
	}
}

/* Sets an entry for good, unlike zend_alter_ini_entry, whose effect ends with the request. */
static bool set_for_good(const char *name, const char *value, bool admin)
{
	zend_ini_entry *entry = entry_of(EG(ini_directives), name);
	zend_ini_entry *shared = entry_of(all_settings, name);
	zend_string *copy;

	if (!entry || !shared) {
		return false;
	}
	copy = zend_string_init(value, strlen(value), 1);
	if (entry->on_modify && entry->on_modify(entry, copy, entry->mh_arg1, entry->mh_arg2,
			entry->mh_arg3, PHP_INI_STAGE_ACTIVATE) == FAILURE) {
		zend_string_release_ex(copy, 1);
		return false;
	}
	change(entry, copy, admin);
	if (shared != entry) {
		/* Interpreters call on_modify when they copy it. */
		change(shared, zend_string_init(value, strlen(value), 1), admin);
	}
	return true;
}

/* Adds the pool's list to that of php.ini: a pool may forbid more, not less. */
static void add_to_list(const char *name, const char *list)
{
	const zend_ini_entry *entry = entry_of(EG(ini_directives), name);
	const char *old;
	char *sum;

	if (!entry) {
		return; /* PHP 8.5 has no disable_classes. */
	}
	old = entry->value ? ZSTR_VAL(entry->value) : "";
	sum = malloc(strlen(old) + strlen(list) + 2);
	if (!sum) {
		zend_error_noreturn(E_CORE_ERROR, "Out of memory");
	}
	sprintf(sum, "%s%s%s", old, *old ? "," : "", list);
	set_for_good(name, sum, true);
	free(sum);
}

void pool_ini_startup(void)
{
	all_settings = EG(ini_directives);
	for (size_t i = 0; i < starting->pool_ini_count; i++) {
		const howdah_ini *setting = &starting->pool_ini[i];
		if (*setting->value && is_startup_setting(setting->name)
				&& !is_setting(setting->name, "extension")) {
			add_to_list(setting->name, setting->value);
		}
	}
}

static void log_setting(const char *format, const char *name)
{
	char message[256];
	const howdah_request *request = current_request();

	int length = snprintf(message, sizeof(message), format, name);
	howdah_calls.log(request ? request->context : NULL, message,
		MIN((size_t) length, sizeof(message) - 1), false);
}

void pool_ini_activate(const howdah_engine_config *config)
{
	/* As in php-fpm, what an administrator sets wins, wherever it stands in the file. */
	for (int admin = 0; admin <= 1; admin++) {
		for (size_t i = 0; i < config->pool_ini_count; i++) {
			const howdah_ini *setting = &config->pool_ini[i];
			if (setting->admin != (bool) admin || is_startup_setting(setting->name)) {
				continue;
			}
			if (!set_for_good(setting->name, setting->value, setting->admin)) {
				log_setting(setting->admin ? "Unable to set php_admin_value '%s'"
					: "Unable to set php_value '%s'", setting->name);
			}
		}
	}
}

/* --- The request's ----------------------------------------------------------------------- */

/* A function that PHP_ADMIN_VALUE disabled, for this request. */
typedef struct disabled_function {
	struct disabled_function *next;
	zend_internal_function *function;
	zif_handler handler;
} disabled_function;

static ZEND_FUNCTION(disabled)
{
	(void) return_value;
	zend_throw_error(NULL, "Call to undefined function %s()",
		ZSTR_VAL(EX(func)->common.function_name));
}

/* PHP itself takes disabled functions out of its tables, for good: php-fpm's worker keeps them
 * disabled for the requests of other sites. Here they come back. Code that opcache's JIT has compiled keeps
 * the address of a function, and does not notice. */
static void disable_functions(const char *list)
{
	const char *separators = ", ";

	for (const char *name = list + strspn(list, separators); *name;) {
		size_t length = strcspn(name, separators);
		zend_string *lower = zend_string_alloc(length, 0);
		zend_function *function;

		zend_str_tolower_copy(ZSTR_VAL(lower), name, length);
		function = zend_hash_find_ptr(CG(function_table), lower);
		if (function && function->type == ZEND_INTERNAL_FUNCTION
				&& function->internal_function.handler != ZEND_FN(disabled)) {
			disabled_function *disabled = pemalloc(sizeof(*disabled), 1);
			disabled->function = &function->internal_function;
			disabled->handler = disabled->function->handler;
			disabled->next = HG(disabled_functions);
			HG(disabled_functions) = disabled;
			disabled->function->handler = ZEND_FN(disabled);
		}
		zend_string_release(lower);
		name += length;
		name += strspn(name, separators);
	}
}

void request_ini_deactivate(void)
{
	while (HG(disabled_functions)) {
		disabled_function *disabled = HG(disabled_functions);
		disabled->function->handler = disabled->handler;
		HG(disabled_functions) = disabled->next;
		pefree(disabled, 1);
	}
}

static void apply_entry(zval *name, zval *value, zval *offset, int type, void *context)
{
	bool admin = *(const bool *) context;
	zend_string *text;
	zend_result set;

	(void) offset;
	if (!name || type != ZEND_INI_PARSER_ENTRY || !value) {
		log_setting("PHP_VALUE and PHP_ADMIN_VALUE take only lines such as name=value: %s",
			name && Z_TYPE_P(name) == IS_STRING ? Z_STRVAL_P(name) : "");
		return;
	}
	if (zend_string_equals_literal(Z_STR_P(name), "disable_functions")) {
		disable_functions(Z_STRVAL_P(value));
		return;
	}
	if (is_startup_setting(Z_STRVAL_P(name))) {
		/* They would outlive the request. */
		log_setting("'%s' can't be set by PHP_VALUE or PHP_ADMIN_VALUE: set it for the pool", Z_STRVAL_P(name));
		return;
	}
	text = zend_string_init(Z_STRVAL_P(value), Z_STRLEN_P(value), 0);
	/* Forced, as in php-fpm: the web server may set what scripts may not. */
	set = zend_alter_ini_entry_ex(Z_STR_P(name), text, admin ? ZEND_INI_SYSTEM : ZEND_INI_USER,
		PHP_INI_STAGE_ACTIVATE, true);
	zend_string_release(text);
	if (set == FAILURE) {
		log_setting(admin ? "Unable to set PHP_ADMIN_VALUE '%s'" : "Unable to set PHP_VALUE '%s'", Z_STRVAL_P(name));
	}
}

static void apply(const howdah_variable *variable, bool admin)
{
	char *text;

	if (!variable || variable->value_length == 0) {
		return;
	}
	/* PHP's parser wants the last line to end. */
	spprintf(&text, 0, "%s\n", variable->value);
	/* What is wrong with it goes to standard error: there is no request yet that could show it. */
	if (zend_parse_ini_string(text, true, ZEND_INI_SCANNER_NORMAL, apply_entry, &admin) == FAILURE) {
		log_setting("%s is not in php.ini's syntax", variable->name);
	}
	efree(text);
}

/* Before PHP starts the request: it reads post_max_size and its like while it does. PHP undoes the
 * changes when the request ends. */
void request_ini_activate(const howdah_request *request)
{
	apply(request_variable(request, ZEND_STRL("PHP_VALUE")), false);
	apply(request_variable(request, ZEND_STRL("PHP_ADMIN_VALUE")), true);
}

/* --- .user.ini ----------------------------------------------------------------------------- */

/* Directories whose settings an interpreter keeps. URLs may name any number of them, as "/a/../a/x.php" and
 * "/a/x.php" count as two. */
#define USER_INI_CACHE_MAX 1024

/* What the files from the document root down to one directory say. */
typedef struct user_ini {
	time_t expires;
	HashTable settings;
} user_ini;

/* PHP's parser of INI files keeps the current section in a variable that all threads share. */
static pthread_mutex_t parser = PTHREAD_MUTEX_INITIALIZER;

static void destroy_user_ini(zval *value)
{
	user_ini *entry = Z_PTR_P(value);

	zend_hash_destroy(&entry->settings);
	pefree(entry, 1);
}

void user_ini_globals_init(zend_howdah_globals *globals)
{
	zend_hash_init(&globals->user_ini_cache, 8, NULL, destroy_user_ini, 1);
}

void user_ini_globals_destroy(zend_howdah_globals *globals)
{
	zend_hash_destroy(&globals->user_ini_cache);
}

/* Reads the file of `directory`, if it has one, into `settings`. */
static void parse_one(const char *directory, HashTable *settings)
{
	char path[MAXPATHLEN];
	struct stat file;
	int length = snprintf(path, sizeof(path), "%s/%s", directory, PG(user_ini_filename));
	volatile bool ended = false;

	/* PHP asks the same. Here it is asked first, as most directories have no file, and others need not wait
	 * for the file system meanwhile. */
	if (length < 0 || (size_t) length >= sizeof(path) || stat(path, &file) != 0 || !S_ISREG(file.st_mode)) {
		return;
	}
	pthread_mutex_lock(&parser);
	zend_try {
		php_parse_user_ini_file(directory, PG(user_ini_filename), settings);
		ended = true;
	} zend_end_try();
	pthread_mutex_unlock(&parser);
	if (!ended) {
		zend_bailout();
	}
}

/* `directory` ends in a slash and is written to, and restored. */
static void parse_all(char *directory, const char *root, size_t root_length, HashTable *settings)
{
	size_t length = strlen(directory);
	char *slash = directory + length - 1;

	/* From the document root down; a script outside of it has only its own directory's file. */
	if (length > root_length && strncmp(directory, root, root_length) == 0
			&& directory[root_length] == '/') {
		slash = directory + root_length;
	}
	for (; slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		parse_one(directory, settings);
		*slash = '/';
	}
}

static int remove_expired(zval *value, void *now)
{
	const user_ini *entry = Z_PTR_P(value);

	return *(const time_t *) now > entry->expires ? ZEND_HASH_APPLY_REMOVE : ZEND_HASH_APPLY_KEEP;
}

static user_ini *new_user_ini(zend_string *key, time_t now)
{
	HashTable *cache = &HG(user_ini_cache);
	user_ini *entry;

	if (zend_hash_num_elements(cache) >= USER_INI_CACHE_MAX) {
		zend_hash_apply_with_argument(cache, remove_expired, &now);
	}
	if (zend_hash_num_elements(cache) >= USER_INI_CACHE_MAX) {
		zend_hash_clean(cache);
	}
	entry = pemalloc(sizeof(*entry), 1);
	entry->expires = 0;
	zend_hash_init(&entry->settings, 8, NULL, (dtor_func_t) config_zval_dtor, 1);
	zend_hash_str_update_ptr(cache, ZSTR_VAL(key), ZSTR_LEN(key), entry);
	return entry;
}

static bool is_directory(const char *path)
{
	struct stat found;

	return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

static void activate_user_ini(char *directory, const howdah_variable *root)
{
	size_t length = strlen(directory);
	size_t root_length = root->value_length;
	time_t now = (time_t) sapi_get_request_time();
	zend_string *key;
	user_ini *entry;

	while (root_length > 0 && root->value[root_length - 1] == '/') {
		root_length--;
	}
	/* Two sites may share a directory below different roots. */
	key = zend_string_concat3(root->value, root_length, "\0", 1, directory, length);
	entry = zend_hash_find_ptr(&HG(user_ini_cache), key);
	if (!entry || now > entry->expires) {
		/* A URL may name directories that are not there, without end. No script can run in one. */
		if (!is_directory(directory)) {
			if (entry) {
				zend_hash_str_del(&HG(user_ini_cache), ZSTR_VAL(key), ZSTR_LEN(key));
			}
			zend_string_release(key);
			return;
		}
		if (!entry) {
			entry = new_user_ini(key, now);
		}
		zend_hash_clean(&entry->settings);
		parse_all(directory, root->value, root_length, &entry->settings);
		entry->expires = now + PG(user_ini_cache_ttl);
	}
	zend_string_release(key);
	php_ini_activate_config(&entry->settings, PHP_INI_PERDIR, PHP_INI_STAGE_HTACCESS);
}

/* The settings that depend on host and directory: php.ini's [HOST=] and [PATH=] sections, and
 * .user.ini files. */
void user_ini_activate(const howdah_request *request)
{
	const howdah_variable *host = request_variable(request, ZEND_STRL("SERVER_NAME"));
	const howdah_variable *root = request_variable(request, ZEND_STRL("DOCUMENT_ROOT"));
	const char *script = SG(request_info).path_translated;
	const char *slash = strrchr(script, '/');
	bool user_files = PG(user_ini_filename) && *PG(user_ini_filename) && root;
	char *directory;

	if (php_ini_has_per_host_config() && host) {
		char *name = estrndup(host->value, host->value_length);
		zend_str_tolower(name, host->value_length);
		php_ini_activate_per_host_config(name, host->value_length);
		efree(name);
	}
	/* A relative path has no directory that could be told. */
	if (*script != '/' || (!php_ini_has_per_dir_config() && !user_files)) {
		return;
	}
	directory = estrndup(script, slash - script + 1);
	if (php_ini_has_per_dir_config()) {
		php_ini_activate_per_dir_config(directory, slash - script + 1);
	}
	if (user_files) {
		activate_user_ini(directory, root);
	}
	efree(directory);
}
